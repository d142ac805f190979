"""CReST in a run: joined images train as labelled ones, with their picks and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import distributed, multiprocessing

from cissod_bench.baselines.crest import self_training
from cissod_bench.baselines.crest.self_training import SelfTrainingHook, renew
from cissod_bench.splits.folder import load_split
from cissod_bench.ssod.data.dataset import SeededConcatDataset
from cissod_bench.ssod.data.pseudo_boxes import ImageLabels, PromotedLabels, PseudoBoxes
from cissod_bench.ssod.data.sampler import LabeledDraw, SemiSampler
from cissod_bench.training import data_config as data
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.runner import run_job
from tests.ssod.models import detector_config, teacher_student
from tests.tiny import final_state, interrupted, tiny_job

DETECTOR = get_detector("r18-small")


def both(tiny: Path, labeled: Path, unlabeled: Path) -> SeededConcatDataset:
    """Two annotation files as the labelled and the unlabelled images of a run."""
    classes = load_split(tiny / "split").class_names
    labeled_part = data.dataset(labeled, tiny / "train", classes, data.labeled_pipeline(DETECTOR), test=False)
    other = data.dataset(unlabeled, tiny / "train", classes, data.unlabeled_pipeline(DETECTOR), test=False)
    return SeededConcatDataset([labeled_part, other], seed=0, damaged_limit=0)


def labels_of(info: dict[str, Any], ignored: int = 0) -> ImageLabels:
    """The annotations of an image as labels, the last ones ignored."""
    boxes = np.array([each["bbox"] for each in info["instances"]], dtype=np.float32)
    labels = np.array([each["bbox_label"] for each in info["instances"]], dtype=np.int16)
    return ImageLabels(boxes, labels, np.arange(len(labels)) >= len(labels) - ignored)


def test_a_joined_image_is_the_image_with_these_annotations(tiny: Path) -> None:
    """Against the data set in which the annotations of the same image stand in the file."""
    truth = tiny / "train.json"
    dataset = both(tiny, truth, truth)  # unlabelled images that come with annotations, which nobody may see
    size = len(dataset) // 2
    for index in range(5):
        code = index + len(dataset) * (7 * index)
        expected = dataset[code]
        labels = labels_of(dataset.datasets[0].get_data_info(index))
        actual = dataset[LabeledDraw(code + size, labels)]
        assert torch.equal(actual["inputs"]["sup"], expected["inputs"]["sup"])
        mine, theirs = (each["data_samples"]["sup"].gt_instances for each in (actual, expected))
        torch.testing.assert_close(mine.bboxes.tensor, theirs.bboxes.tensor)
        assert torch.equal(mine.labels, theirs.labels)


def test_a_joined_image_has_its_picks_alone_and_ignored_boxes_apart(tiny: Path) -> None:
    dataset = both(tiny, load_split(tiny / "split").labeled_file, tiny / "train.json")
    info = dataset.datasets[1].get_data_info(3)
    assert len(info["instances"]) > 1
    one = labels_of({"instances": info["instances"][:1]})
    number = len(dataset.datasets[0]) + 3
    assert len(dataset[LabeledDraw(number, one)]["data_samples"]["sup"].gt_instances) == 1
    sample = dataset[LabeledDraw(number, labels_of(info, ignored=1))]["data_samples"]["sup"]
    assert len(sample.gt_instances) == len(info["instances"]) - 1
    assert sample.ignored_instances.labels.tolist() == [info["instances"][-1]["bbox_label"]]


OPTIONS = {"generations": 4, "theta": 0.06, "threshold": 0.05}


@pytest.fixture(scope="module", autouse=True)
def short_distance() -> Iterator[None]:
    """Generations of one iteration need a shorter distance than that for eight workers; this is enough for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_training, "READ_AHEAD", 2)
        yield


def crest_job(tiny: Path, out: Path, workers: int = 0, **options: Any) -> Any:
    """Eight iterations; burn-in until 4, boundaries after 5, 6 and 7, and the last batch is of generation 1."""
    return tiny_job(tiny, out, method="crest", iterations=8, options=OPTIONS | options, workers=workers)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out: Path = tmp_path_factory.mktemp("crest") / "run"
    run_job(crest_job(tiny, out))
    return out


def generations_logged(out: Path) -> list[str]:
    (log,) = out.glob("2*/2*.log")
    return [line[line.index("CReST") :] for line in log.read_text().splitlines() if "CReST generation" in line]


def test_images_join_at_each_boundary(whole: Path) -> None:
    lines = generations_logged(whole)
    assert [line.split(":")[0] for line in lines] == [f"CReST generation {number}" for number in (1, 2, 3)]
    assert not any(" 0 of 0 boxes" in line for line in lines)
    state = torch.load(whole / "checkpoints" / "iter_8.pth", weights_only=False)["sampler"]["segments"]
    assert [segment.start for segment in state[0]] == [8, 9], "what is over is not kept"
    for segment in state[0]:
        assert segment.copies[-len(state[1][0].copies) :].any()
        assert len(segment.labels.boxes)
        assert not segment.labels.ignored.any()


def test_picks_decide_what_is_learnt(whole: Path, tiny: Path, tmp_path: Path) -> None:
    """The last batch has joined images; without a pick, the labelled images stay alone, in the same generations."""
    job = crest_job(tiny, tmp_path / "run", pick_threshold=1.0)
    run_job(job)
    assert all("0 of 0 boxes above 1 are kept, 0 of" in line for line in generations_logged(job.out))
    segment = torch.load(job.out / "checkpoints" / "iter_8.pth", weights_only=False)["sampler"]["segments"][0][0]
    labeled = job.split.counts["labeled_images"]
    assert segment.copies[:labeled].all()
    assert not segment.copies[labeled:].any()
    for iteration, same in ((7, True), (8, False)):
        one, other = final_state(whole, iteration), final_state(job.out, iteration)
        assert all(torch.equal(one[name], other[name]) for name in one) is same


@pytest.mark.parametrize("after", [4, 5])
def test_a_run_killed_before_and_after_a_boundary_goes_on_exactly(
    after: int, whole: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = crest_job(tiny, tmp_path / "run")
    interrupted(job, monkeypatch, after=after)
    run_job(job)
    expected, actual = final_state(whole, 8), final_state(job.out, 8)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_a_worker_that_reads_ahead_changes_nothing(whole: Path, tiny: Path, tmp_path: Path) -> None:
    run_job(crest_job(tiny, tmp_path / "run", workers=1))
    expected, actual = final_state(whole, 8), final_state(tmp_path / "run", 8)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_every_option_trains(tiny: Path, tmp_path: Path) -> None:
    options = {"align": True, "ignore_unkept": True, "reinit": True, "pick_threshold": 0.08}
    job = crest_job(tiny, tmp_path / "run", **options)
    run_job(job)
    segment = torch.load(job.out / "checkpoints" / "iter_8.pth", weights_only=False)["sampler"]["segments"][0][0]
    assert len(segment.labels.boxes) > segment.labels.ignored.sum() > 0


def stub(tiny: Path, batch: tuple[int, int]) -> Any:
    """As much of a run as the hook asks for, with a model that finds something."""
    split = load_split(tiny / "split")
    dataset = both(tiny, split.labeled_file, split.unlabeled_file)
    validation = {"batch_size": 3, "dataset": {"pipeline": data.test_pipeline(DETECTOR)}}
    model = teacher_student()
    optimizer = torch.optim.AdamW(model.student.parameters())
    return SimpleNamespace(
        model=model,
        iter=59,
        max_iters=100,
        seed=5,
        cfg=Config({"val_dataloader": validation, "model": {"detector": detector_config()}}),
        train_dataloader=SimpleNamespace(
            dataset=dataset, num_workers=0, sampler=SemiSampler(dataset, sum(batch), batch, seed=1)
        ),
        optim_wrapper=SimpleNamespace(optimizer=optimizer),
        call_hook=lambda name, **_: None,
        logger=SimpleNamespace(info=lambda text: None),
        message_hub=SimpleNamespace(update_scalar=lambda name, value: None),
    )


def begin(runner: Any, **options: Any) -> PromotedLabels:
    """Pass a boundary; what joins."""
    given: dict[str, Any] = {"rates": [0.5] * 12, "theta": 0.13, "labeled_repeat": 0.1, "ignore_unkept": False}
    hook = SelfTrainingHook(**{"generations": 10, "burn_in": 20, "reinit": False, **given, **options})
    runner.iter = 58
    hook.after_train_iter(runner, 0)
    assert len(runner.train_dataloader.sampler.state(200)["segments"][0]) == 1, "no boundary yet"
    assert runner.train_dataloader.sampler.state(200)["segments"][0][0].start == 0
    runner.iter = 59
    hook.after_train_iter(runner, 0)
    (segment,) = runner.train_dataloader.sampler.state(200)["segments"][0]
    assert segment.start == 60 + self_training.READ_AHEAD
    labels: PromotedLabels = segment.labels
    return labels


def _rank(rank: int, folder: str, tiny: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    runner = stub(tiny, (2, 1))
    begin(runner)
    torch.save(runner.train_dataloader.sampler.state(60)["segments"], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_begin_the_generation_of_one_process(tiny: Path, tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (str(tmp_path), tiny), nprocs=2)
    runner = stub(tiny, (4, 2))
    assert len(begin(runner).boxes)
    expected = runner.train_dataloader.sampler.state(60)["segments"]
    for rank in range(2):
        for mine, theirs in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=False)[0], expected[0], strict=True):
            np.testing.assert_array_equal(mine.copies, theirs.copies)
            if theirs.labels is not None:
                for one, other in zip(mine.labels.boxes.columns(), theirs.labels.boxes.columns(), strict=True):
                    np.testing.assert_array_equal(one, other)


def test_unkept_boxes_come_along_only_to_be_ignored(tiny: Path) -> None:
    runner = stub(tiny, (4, 2))
    runner.model.semi_train_cfg.pseudo_label_initial_score_thr = 0.12
    plain, ignoring = begin(runner), begin(stub_like(runner), ignore_unkept=True)
    assert ignoring.ignored.any()
    kept = ignoring.boxes.rows(~ignoring.ignored)
    for mine, theirs in zip(kept.columns(), plain.boxes.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(ignoring.boxes.image.tolist()) == set(plain.boxes.image.tolist()), "only images with a picked box join"
    assert ignoring.boxes.score.min() > 0.12


def stub_like(runner: Any) -> Any:
    """The same run with a fresh sampler."""
    loader = runner.train_dataloader
    sampler = SemiSampler(loader.dataset, 6, (4, 2), seed=1)
    runner.train_dataloader = SimpleNamespace(dataset=loader.dataset, num_workers=0, sampler=sampler)
    return runner


def test_boxes_of_no_size_are_never_picked(tiny: Path) -> None:
    hook = SelfTrainingHook(10, 0, [1.0] * 12, 0.5, 0.1, False, False)
    boxes = np.array([[0, 0, 5, 5], [3, 3, 3, 9], [2, 2, 9, 2.5]], dtype=np.float32)
    found = PseudoBoxes(np.arange(3, dtype="i4"), np.zeros(3, "i2"), boxes, np.full(3, 0.9, "f4"))
    kept_boxes, kept = hook._pick(found)
    assert kept_boxes.image.tolist() == [0]
    assert kept.tolist() == [True]


def test_a_renewed_network_is_new_the_same_again_and_untrained(tiny: Path) -> None:
    runner, other = stub(tiny, (4, 2)), stub(tiny, (4, 2))
    old = {name: value.clone() for name, value in runner.model.student.state_dict().items()}
    runner.optim_wrapper.optimizer.state["x"] = 1
    state = torch.get_rng_state()
    renew(runner, 3)
    assert torch.equal(state, torch.get_rng_state())
    renew(other, 3)
    new = runner.model.student.state_dict()
    assert not torch.equal(new["roi_head.bbox_head.fc_cls.weight"], old["roi_head.bbox_head.fc_cls.weight"])
    assert len(runner.optim_wrapper.optimizer.state) == 0
    for name, value in new.items():
        assert torch.equal(value, other.model.student.state_dict()[name])
        assert torch.equal(value, runner.model.teacher.state_dict()[name])
    renew(other, 4)
    assert not torch.equal(new["backbone.conv1.weight"], other.model.student.state_dict()["backbone.conv1.weight"])
