"""Two stages in one run: their images, boxes, rates and states, and what survives an interruption between them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from cissod_bench.baselines.defrcn import stages
from cissod_bench.baselines.defrcn.calibration import Calibration
from cissod_bench.baselines.defrcn.stages import TwoStageHook, leave_out
from cissod_bench.errors import UserError
from cissod_bench.splits.folder import load_split, write_ids
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.randomness import derived_seed
from cissod_bench.training.build_config import build_config
from cissod_bench.training.runner import run_job
from tests.baselines.defrcn.test_calibration import Pooling, state_of
from tests.baselines.defrcn.test_defrcn import naive_balanced
from tests.launch.test_torchrun import PROGRAM, command, take_both_halves
from tests.tiny import final_state, interrupted, tiny_job

HALF = {"fine_tuning": 0.5, "shots": 3}


class Labelled:
    """As much of an mmdet data set as the hook asks for; a class below 0 is a crowd of its opposite minus one."""

    ann_file = "labeled.json"

    def __init__(self, images: dict[int, list[int]], num_classes: int) -> None:
        self.images, self.metainfo = list(images.items()), {"classes": list(range(num_classes))}

    def __len__(self) -> int:
        return len(self.images)

    def get_data_info(self, index: int) -> dict[str, Any]:
        number, labels = self.images[index]
        instances = [
            {"bbox": [0, 0, 9, 9], "bbox_label": label if label >= 0 else -label - 1, "ignore_flag": int(label < 0)}
            for label in labels
        ]
        return {"img_id": number, "img_path": f"{number}.png", "instances": instances}


def chosen(
    tmp_path: Path, images: dict[int, list[int]], minority: list[int], minority_images: list[int], **options: Any
) -> dict[int, np.ndarray]:
    """Repeat factors of labelled images by the batch from which they hold."""
    write_ids(tmp_path / "minority.txt", np.array(minority_images, dtype=np.int64))
    hook = TwoStageHook(
        **{
            "start": 50,
            "minority": minority,
            "minority_images": str(tmp_path / "minority.txt"),
            "threshold": 0.0,
            "shots": 3,
            "roi_gradient": 0.01,
            "dropout": 0.8,
            "learning_rate": 1.0,
            "weight_decay": 5e-5,
            **options,
        }
    )
    found: dict[int, np.ndarray] = {}

    def repeat(source: int, factors: np.ndarray, start: int) -> None:
        assert source == 0
        found[start] = factors

    dataset = SimpleNamespace(datasets=[Labelled(images, 4), None])
    loader = SimpleNamespace(dataset=dataset, sampler=SimpleNamespace(repeat=repeat))
    runner: Any = SimpleNamespace(train_dataloader=loader, seed=3, logger=SimpleNamespace(info=lambda text: None))
    hook.before_train(runner)
    return found


def by_hash(images: dict[int, list[int]]) -> list[int]:
    """Positions of images in the order in which they are candidates under seed 3."""
    numbers = list(images)
    return sorted(range(len(numbers)), key=lambda index: derived_seed(3, "balanced set", numbers[index]))


def test_scenario_1_pretrains_on_d_m_and_fine_tunes_on_d_s_and_enough_of_d_m(tmp_path: Path) -> None:
    images = {10: [0], 11: [0, 0, 1], 12: [1], 13: [2, 0], 14: [3, 3, 3], 15: [0, 1], 16: [-1], 17: [], 18: [1, 1]}
    factors = chosen(tmp_path, images, minority=[2, 3], minority_images=[13, 14])
    assert factors[0].tolist() == [1, 1, 1, 0, 0, 1, 1, 0, 1], "D_s and images without a majority object are left out"
    labels = [[label for label in found if label >= 0] for found in images.values()]
    expected = naive_balanced(labels, [number in (13, 14) for number in images], by_hash(images), 4, 3)
    assert factors[50].tolist() == [float(value) for value in expected]
    assert factors[50][[3, 4]].tolist() == [1, 1]
    assert 0 < factors[50][[0, 1, 2, 5, 8]].sum() < 5
    assert factors[50][6] == 0, "a crowd is no shot"


def test_scenario_2_has_no_d_s_and_draws_the_balanced_set_for_all_classes(tmp_path: Path) -> None:
    images = {number: [0] for number in range(20)} | {30: [0, 2], 31: [2], 32: [1, 3], 33: [1, 1, 0]}
    factors = chosen(tmp_path, images, minority=[1, 2, 3], minority_images=[], shots=2)
    assert factors[0].tolist() == [1] * 20 + [1, 0, 0, 1], "all images with a frequent class"
    assert factors[50][20:].tolist() == [1, 1, 1, 1], "two boxes of 2 and the one of 3; 1 has one of its three yet"
    assert factors[50][:20].sum() == 0, "class 0 has two boxes already"


def test_images_of_the_first_stage_repeat_by_their_majority_classes_in_d_m_alone(tmp_path: Path) -> None:
    images = {number: [0] for number in range(9)} | {9: [0, 1], 10: [1, 2], 11: [2]}
    factors = chosen(tmp_path, images, minority=[2, 3], minority_images=[10, 11], threshold=0.9)
    assert factors[0].tolist() == pytest.approx([1.0] * 9 + [3.0, 0, 0])  # sqrt(0.9 / 0.1)


def test_a_labelled_part_without_majority_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labeled.json: no labelled image holds a majority class"):
        chosen(tmp_path, {1: [2], 2: [3]}, minority=[2, 3], minority_images=[])


def test_boxes_of_some_classes_are_left_out() -> None:
    found = InstanceData(bboxes=torch.arange(16.0).reshape(4, 4), labels=torch.tensor([0, 3, 2, 3]))
    sample = SimpleNamespace(gt_instances=found)
    leave_out([sample, None], [1, 3])
    assert sample.gt_instances.labels.tolist() == [0, 2]
    assert sample.gt_instances.bboxes[:, 0].tolist() == [0, 8]


Seen = list[dict[str, Any]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What holds in each iteration, as the hook leaves it."""
    notes: Seen = []
    original = TwoStageHook.before_train_iter

    def note(self: TwoStageHook, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        original(self, runner, batch_idx, data_batch)
        samples = [sample for sample in data_batch["data_samples"]["sup"] if sample is not None]
        student, teacher = model_of(runner).student, model_of(runner).teacher
        (group,) = runner.optim_wrapper.optimizer.param_groups
        notes.append(
            {
                "images": [sample.img_id for sample in samples],
                "labels": {label for sample in samples for label in sample.gt_instances.labels.tolist()},
                "lr": group["lr"],
                "weight_decay": group["weight_decay"],
                "state": len(runner.optim_wrapper.optimizer.state),
                "shared": student.roi_head.bbox_head.shared_fcs[1].weight.clone(),
                "classifier": student.roi_head.bbox_head.fc_cls.weight.clone(),
                "equal": all(map(torch.equal, student.state_dict().values(), teacher.state_dict().values())),
            }
        )

    monkeypatch.setattr(TwoStageHook, "before_train_iter", note)
    return notes


def test_a_run_trains_each_stage_on_its_images_at_its_rate(tiny: Path, tmp_path: Path, seen: Seen) -> None:
    job = tiny_job(tiny, tmp_path / "run", method="defrcn", options=HALF, iterations=20, workers=2)
    result = run_job(job)
    assert set(result.metrics) == {"all", "maj", "min"}
    split = load_split(tiny / "split")
    minority = {label for label, name in enumerate(split.class_names) if name in split.groups["min"]}
    first, second = seen[:10], seen[10:]
    assert {image for note in first for image in note["images"]} == set(split.majority_ids.tolist()), "all of D_m"
    assert not any(note["labels"] & minority for note in first)
    tuned = {image for note in second for image in note["images"]}
    assert tuned >= set(split.minority_ids.tolist()), "all of D_s"
    assert tuned - set(split.minority_ids.tolist()), "and some of D_m"
    assert tuned < set(split.labeled_ids.tolist()), "but not all of it"
    assert set().union(*(note["labels"] for note in second)) == set(range(12))

    # Warm-up of 4 iterations, then the steps of the run until the second stage has its own.
    assert [note["lr"] for note in first[4:]] == pytest.approx([1e-3] * 6)
    assert [note["lr"] for note in second] == pytest.approx([1e-3] * 8 + [1e-4] * 2)
    assert {note["weight_decay"] for note in first} == {1e-4}
    assert {note["weight_decay"] for note in second} == {5e-5}
    assert [note["state"] > 0 for note in seen] == [False, *[True] * 9, False, *[True] * 9], "a new optimiser"

    assert not torch.equal(first[8]["shared"], first[9]["shared"])
    assert all(torch.equal(note["shared"], second[0]["shared"]) for note in second)
    assert torch.equal(final_state(job.out, 20)["student.roi_head.bbox_head.shared_fcs.1.weight"], second[0]["shared"])
    assert not torch.equal(second[0]["classifier"], second[1]["classifier"])
    assert second[0]["equal"]
    assert not second[1]["equal"]


@pytest.mark.parametrize("after", [2, 5])  # at the change: test_run.py
def test_a_run_interrupted_before_and_after_the_change_ends_in_the_same_state(
    after: int, tiny: Path, tmp_path: Path, whole: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tiny, tmp_path / "run", method="defrcn", options=HALF, iterations=6)
    interrupted(job, monkeypatch, after=after)
    run_job(job)
    resumed = torch.load(job.out / "checkpoints" / "iter_6.pth", weights_only=False)
    expected = whole()
    for part in ("state_dict", "optimizer"):
        flat, other = dict(_flat(expected[part])), dict(_flat(resumed[part]))
        assert flat.keys() == other.keys()
        for name, value in flat.items():
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert same, f"{part}: {name}"


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """The last checkpoint of a run without an interruption."""
    job = tiny_job(tiny, tmp_path_factory.mktemp("whole") / "run", method="defrcn", options=HALF, iterations=6)
    run_job(job)
    return lambda: dict(torch.load(job.out / "checkpoints" / "iter_6.pth", weights_only=False))


def _flat(value: Any, name: str = "") -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    if not items:
        yield name, value
    for key, inner in items:
        yield from _flat(inner, f"{name}/{key}")


def test_two_processes_change_the_stage_as_one_process_does(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both freeze the same layers and draw the same rows, and neither waits for gradients that no longer come."""
    options = [part for name, value in HALF.items() for part in ("-o", f"{name}={value}")]
    asked = command(tiny, tmp_path / "two", "--processes", "2", method=["--method", "defrcn", *options], iterations=6)
    done = subprocess.run([sys.executable, *PROGRAM, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    take_both_halves(monkeypatch)
    run_job(tiny_job(tiny, tmp_path / "one", method="defrcn", options=HALF, iterations=6))
    one, two = final_state(tmp_path / "one", 6), final_state(tmp_path / "two", 6)
    assert one.keys() == two.keys()
    worst = {name: (one[name].float() - value.float()).abs().max().item() for name, value in two.items()}
    # Adam makes steps of some part of the rate, 1.4e-3, of what is rounding in gradients near 0.
    assert max(worst.values()) < 5e-4, sorted(worst.items(), key=lambda item: -item[1])[:5]


def test_calibration_changes_scores_of_minority_classes_at_test_time_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "load_imagenet_network", lambda path: Pooling())
    torch.save(state_of(101), tmp_path / "resnet101.pth")
    before: list[Any] = []
    after: list[Any] = []
    original = Calibration.apply

    def note(self: Calibration, path: Path, found: InstanceData) -> None:
        before.extend(zip(found.labels.tolist(), found.scores.tolist(), strict=True))
        original(self, path, found)
        after.extend(zip(found.labels.tolist(), found.scores.tolist(), strict=True))

    monkeypatch.setattr(Calibration, "apply", note)
    monkeypatch.setattr("cissod_bench.training.runner.run_costs", lambda *_: None)  # looks at images once more
    options = HALF | {"pcb": str(tmp_path / "resnet101.pth")}
    job = tiny_job(tiny, tmp_path / "run", method="defrcn", options=options, iterations=2)
    run_job(job)
    split = load_split(tiny / "split")
    minority = {label for label, name in enumerate(split.class_names) if name in split.groups["min"]}
    changed = {label for (label, old), (_, new) in zip(before, after, strict=True) if old != new}
    assert changed, "scores change"
    assert changed <= minority, "of minority classes alone"
    assert {label for label, _ in before} - minority
    detections = json.loads((job.out / "detections.json").read_text())
    assert [each["score"] for each in detections] == [score for _, score in after], "and are the ones evaluated"
    assert not any("calibration" in name for name in final_state(job.out, 2))


def test_groups_by_frequency_make_c_and_r_the_minority(tiny: Path, tmp_path: Path) -> None:
    config = build_config(tiny_job(tiny, tmp_path / "run", method="defrcn"))
    (hook,) = [hook for hook in config.custom_hooks if hook["type"].endswith(".TwoStageHook")]
    split = load_split(tiny / "split")
    assert {split.class_names[label] for label in hook["minority"]} == set(split.groups["min"])
