"""Runs from the job to the record, for every method of the registry."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from cissod_bench.errors import UserError
from cissod_bench.evaluation.groups import evaluate
from cissod_bench.io import sha256_file
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import Result, load_result
from cissod_bench.results.run_folder import parse_config
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.ssod.checkpoint_reading import load_checkpoint
from cissod_bench.ssod.metric import GroupAP
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.build_config import PlainConfig, build_config
from cissod_bench.training.config_diff import differences, is_path
from cissod_bench.training.job import Job
from cissod_bench.training.preflight import check_parts
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.recipes.schedules import SCHEDULES
from cissod_bench.training.runner import check_folder, run_job, take_folder
from tests.tiny import Killed, final_state, interrupted, tiny_job


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Result]:
    """An uninterrupted run of soft-teacher."""
    job = tiny_job(tiny, tmp_path_factory.mktemp("whole") / "run")
    return job, run_job(job)


@pytest.fixture(scope="module")
def gbs_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of gbs with hidden annotations."""
    out: Path = tmp_path_factory.mktemp("gbs") / "run"
    run_job(tiny_job(tiny, out, method="gbs", hidden=tiny / "train.json"))
    return out


STATELESS = ("supervised", "full-labels", "rfs", "focal")
"""Methods that are tried in two real steps elsewhere, and keep nothing from one iteration to the next."""


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name in STATELESS else name for name in METHODS]
)
def test_every_method_trains_evaluates_records_and_resumes_exactly(
    method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tiny, tmp_path / "whole", method=method)
    result = run_job(job)
    assert load_result(job.out / "result.json") == result
    assert (result.key.method, result.key.split_digest, result.key.shortened) == (method, job.split.digest, True)
    assert set(result.metrics) == {"all", "maj", "min"}
    assert result.key.batch == (4, 2), "also where the method leaves out the unlabelled images"

    # Both halves have an iteration with pseudo labels: the burn-in is two of four iterations.
    other = tiny_job(tiny, tmp_path / "resumed", method=method)
    interrupted(other, monkeypatch, after=3)
    resumed = run_job(other)
    expected, actual = final_state(job.out, 4), final_state(other.out, 4)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name
    assert resumed.metrics == result.metrics


def test_a_run_goes_on_and_is_shown_wherever_its_files_lie(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by relative paths; then its folder and the data are moved, and it goes on from another directory."""
    whole = tiny_job(tiny, tmp_path / "whole", method="defrcn", hidden=tiny / "train.json")
    result = run_job(whole)
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny, here / "data")
    there.mkdir()
    monkeypatch.chdir(here)
    begun = tiny_job(Path("data"), Path("runs/s"), method="defrcn", hidden=Path("data/train.json"))
    interrupted(begun, monkeypatch, after=2)
    (here / "runs" / "s").rename(there / "s")
    (here / "data").rename(there / "data")
    monkeypatch.chdir(tmp_path)
    resumed = run_job(tiny_job(there / "data", there / "s", method="defrcn", hidden=there / "data" / "train.json"))
    expected, actual = final_state(whole.out, 4), final_state(there / "s", 4)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    assert (there / "s" / "detections.json").read_bytes() == (whole.out / "detections.json").read_bytes()
    assert (there / "s" / "observables.jsonl").read_text() == (whole.out / "observables.jsonl").read_text()
    assert resumed.metrics == result.metrics
    assert [path.name for path in here.rglob("*")] == ["runs"], "nothing is written where it was"
    assert "'runs/s" not in (there / "s" / "config.py").read_text()
    assert run_job(tiny_job(Path("there/data"), Path("there/s"), method="defrcn")) == resumed
    with pytest.raises(UserError, match=r"there/s holds another run: train_seed is 0, not 1"):
        run_job(tiny_job(Path("there/data"), Path("there/s"), method="defrcn", seed=1))


@pytest.mark.parametrize("method", METHODS)
def test_places_are_not_what_a_run_is(method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    one = build_config(tiny_job(tiny, tmp_path / "run", method=method)).pretty_text
    other = build_config(tiny_job(Path("data"), Path("run"), method=method, hidden=Path("data/train.json")))
    assert differences(one, other.pretty_text) == []


def test_what_lies_at_the_places_is_what_a_run_is(tiny: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny, data)
    before = build_config(tiny_job(data, out)).pretty_text

    def changed(**changes: Any) -> list[str]:
        found = differences(before, build_config(tiny_job(data, out, **changes)).pretty_text)
        return [line.partition(" is ")[0] for line in found]

    assert changed() == []
    assert changed(seed=1)[0] == "train_seed"
    assert changed(method="gbs")[0] == "method"
    assert changed(options={"theta": "0.5"})[0] == "method_options.theta"

    annotations = (data / "val.json").read_bytes()
    content = json.loads(annotations)
    content["annotations"][0]["bbox"][2] += 1
    (data / "val.json").write_text(json.dumps(content))
    assert changed() == ["validation_digest"]
    (data / "val.json").write_bytes(annotations)

    shutil.rmtree(data / "split")
    make_splits(get_task(str(data / "task.toml")), data / "train.json", [(data / "split", Variant(seed=1))])
    assert changed() == ["split_digest", "split_seed"]


def test_a_run_of_a_version_that_did_not_note_validation_digests_goes_on(tiny: Path, tmp_path: Path) -> None:
    now = build_config(tiny_job(tiny, tmp_path / "run")).pretty_text
    before = re.sub(r",\n 'validation_digest': '\w+'", "", now)
    assert before != now
    assert differences(before, now) == []


def test_an_unfinished_run_of_version_0_1_is_not_continued(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its methods sampled boxes in another way, so its second half would be another method's."""
    job = tiny_job(tiny, tmp_path / "run")
    interrupted(job, monkeypatch, after=2)
    settings = PlainConfig(parse_config(job.folder.config.read_text()))
    for name in ("method_version", "resolved_options"):  # which it did not note
        settings.run.pop(name)
    job.folder.config.write_text(settings.pretty_text)
    arguments = run_arguments(msgspec.structs.replace(job.spec, out=job.out))
    with pytest.raises(UserError, match=r"run holds an unfinished run of version 0\.1, .*\. Give another --out\.$"):
        run_job(job)
    done = subprocess.run(
        [sys.executable, "-m", "cissod_bench.cli.main", "run", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("sampled boxes in another way. Give another --out.")
    run_job(tiny_job(tiny, tmp_path / "other"))  # there it can run


def test_places_are_told_by_their_names() -> None:
    assert is_path("custom_hooks.9.mine", "data/split/ids/minority.txt"), "whatever a method calls it"
    assert is_path("model.detector.backbone.init_cfg.checkpoint", "r50.pth")
    assert not is_path("default_hooks.checkpoint.interval", 3)
    assert not is_path("run.options.folder", "x")


def test_the_state_of_gbs_is_logged_with_the_quality_of_its_pseudo_labels(gbs_run: Path) -> None:
    lines = [json.loads(line) for line in (gbs_run / "observables.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert sum(lines[-1]["weights"]) == pytest.approx(13, abs=1e-3)
    assert "thresholds" not in lines[0], "no pseudo labels during the burn-in"
    assert len(lines[-1]["thresholds"]) == 12
    pseudo = lines[-1]["pseudo_labels"]
    assert all(right <= given for right, given in zip(pseudo["right"], pseudo["given"], strict=True))
    assert sum(pseudo["annotated"]) > 0


def test_weights_are_laid_out_for_the_device(gbs_run: Path) -> None:
    """By the runner alone; a checkpoint keeps the layout."""
    state = load_checkpoint(gbs_run / "checkpoints" / "iter_4.pth")["state_dict"]
    assert state["student.backbone.conv1.weight"].is_contiguous(memory_format=torch.channels_last)


def test_hidden_annotations_change_nothing_in_training(gbs_run: Path, tiny: Path, tmp_path: Path) -> None:
    run_job(tiny_job(tiny, tmp_path / "without", method="gbs"))
    one, other = final_state(gbs_run, 4), final_state(tmp_path / "without", 4)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_killed_before_its_last_evaluation_is_evaluated_on_its_last_weights(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluations on the way must not pass for the last one."""
    monkeypatch.setitem(SCHEDULES, "short", dataclasses.replace(SCHEDULES["short"], evaluations=4))
    expected = run_job(tiny_job(tiny, tmp_path / "whole"))
    job = tiny_job(tiny, tmp_path / "killed")

    def die(self: GroupAP, results: Any) -> Any:
        if (job.out / "checkpoints" / "iter_4.pth").exists():
            raise Killed
        return original(self, results)

    original = GroupAP.compute_metrics
    with monkeypatch.context() as patch:
        patch.setattr(GroupAP, "compute_metrics", die)
        with pytest.raises(Killed):
            run_job(job)
    assert (job.out / "per_class.npz").exists(), "of the third evaluation"
    assert run_job(job).metrics == expected.metrics


def test_a_loss_that_is_no_number_stops_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TeacherStudent.loss_by_gt_instances

    def spoiled(self: TeacherStudent, *args: Any) -> Any:
        losses = original(self, *args)
        return losses | {"sup_loss_cls": losses["sup_loss_cls"] * (float("nan") if self.iteration == 2 else 1.0)}

    monkeypatch.setattr(TeacherStudent, "loss_by_gt_instances", spoiled)
    with pytest.raises(UserError, match=r"not finite at iteration 3: .*sup_loss_cls = nan"):
        run_job(tiny_job(tiny, tmp_path / "run"))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["iter_1.pth", "iter_2.pth"]
    assert not (tmp_path / "run" / "result.json").exists()


def test_from_scratch_every_weight_of_the_paper_detector_learns(tiny: Path, tmp_path: Path) -> None:
    """Frozen batch normalisation of random weights, with zero-initialised residual branches, would not."""
    config = build_config(tiny_job(tiny, tmp_path / "run", detector="r50-fpn"))
    backbone = MODELS.build(config.model.detector.backbone)
    backbone.init_weights()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    for _ in range(2):  # the residual branches start at zero and open with the first step
        optimizer.zero_grad()
        sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_backbone_file_is_held_against_the_backbone_and_goes_into_the_key(
    prefix: str, tiny: Path, tmp_path: Path
) -> None:
    detector = get_detector("r18-small").model(12, 100)
    state = {f"{prefix}{name}": value + 1 for name, value in MODELS.build(detector["backbone"]).state_dict().items()}
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": state}, file)
    job = tiny_job(tiny, tmp_path / "run", backbone=file, iterations=1)
    assert run_job(job).key.backbone == sha256_file(file)
    loaded = final_state(tmp_path / "run", 1)["teacher.backbone.conv1.weight"]
    torch.testing.assert_close(loaded, state[f"{prefix}conv1.weight"], atol=0.01, rtol=0)

    torch.save({name: value for name, value in state.items() if "layer3.0.conv1" not in name}, file)
    with pytest.raises(UserError, match=r"the weight layer3.0.conv1.weight is missing. Give a ResNet-18"):
        check_parts(tiny_job(tiny, tmp_path / "other", backbone=file))
    torch.save({**state, f"{prefix}conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"conv1.weight has shape \(1,\)"):
        check_parts(tiny_job(tiny, tmp_path / "other", backbone=file))
    file.write_text("not a checkpoint")
    with pytest.raises(UserError, match="neither a PyTorch checkpoint nor safetensors"):
        tiny_job(tiny, tmp_path / "other", backbone=file)
    assert not (tmp_path / "other").exists()


def test_an_image_that_cannot_be_read_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    for image in (folder / "train").iterdir():
        image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(UserError, match=r"\.png: the file is cut off\..*Replace what is damaged"):
        run_job(tiny_job(folder, tmp_path / "run"))


def test_a_finished_run_is_left_as_it_is(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", iterations=1)
    result = run_job(job)
    before = {path: path.stat().st_mtime_ns for path in job.out.rglob("*") if path.is_file()}
    assert run_job(job) == result
    assert before == {path: path.stat().st_mtime_ns for path in job.out.rglob("*") if path.is_file()}
    check_folder(job)
    other = tiny_job(tiny, tmp_path / "run", iterations=1, seed=1)
    for refusing in (run_job, check_folder):
        with pytest.raises(UserError, match=r"holds another run: train_seed is 0, not 1"):
            refusing(other)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    whole: tuple[Job, Result], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tiny, tmp_path / "run")
    interrupted(job, monkeypatch, after=3)
    newest = job.out / "checkpoints" / "iter_3.pth"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"iter_3.pth is damaged; resuming from .*iter_2.pth"):
        resumed = run_job(job)
    expected, actual = final_state(whole[0].out, 4), final_state(job.out, 4)
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    assert resumed.metrics == whole[1].metrics


def test_the_number_of_loader_workers_changes_nothing(gbs_run: Path, tiny: Path, tmp_path: Path) -> None:
    run_job(tiny_job(tiny, tmp_path / "run", method="gbs", workers=2, hidden=tiny / "train.json"))
    one, other = final_state(gbs_run, 4), final_state(tmp_path / "run", 4)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_record_is_the_evaluation_of_the_written_detections(whole: tuple[Job, Result], tiny: Path) -> None:
    job, result = whole
    detections = job.out / "detections.json"
    assert json.loads(detections.read_text()), "an untrained detector still finds something"
    again = evaluate(tiny / "val.json", detections, job.split.groups, evaluator="pycocotools")
    assert again.metrics() == result.metrics
    with np.load(job.out / "per_class.npz") as arrays:
        assert arrays["precision"].shape[:2] == (10, 101)


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(tiny: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_job(tiny_job(tiny, tmp_path / name, seed=seed, iterations=2))
        weights.append(final_state(tmp_path / name, 2)["student.roi_head.bbox_head.fc_cls.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_folder_that_holds_something_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no run"):
        run_job(tiny_job(tiny, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_the_paper_schedule_of_the_paper_detector(tiny: Path, tmp_path: Path) -> None:
    """Paper sec. 4.2: SGD 0.01 on 8 GPUs, /10 at 75 % and 90 %, momentum 0.9, decay 1e-4, 1 + 4 images per GPU."""
    config = build_config(tiny_job(tiny, tmp_path / "run", detector="r50-fpn", iterations=180_000))
    assert config.optim_wrapper.optimizer == {"type": "SGD", "lr": 0.00125, "momentum": 0.9, "weight_decay": 1e-4}
    assert config.param_scheduler[1].milestones == [135_000, 162_000]
    assert config.train_cfg.max_iters == 180_000
    assert config.train_dataloader.sampler.source_ratio == (1, 4)
    semi = config.model.semi_train_cfg
    assert (semi.unsup_weight, semi.rpn_pseudo_thr, semi.reg_pseudo_thr, semi.jitter_times) == (4.0, 0.9, 0.02, 10)
    assert config.model.threshold.value == 0.9
    assert config.model.detector.backbone.depth == 50


def test_a_run_killed_while_its_configuration_is_first_written_starts_again(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "in_use.lock").touch()
    (out / ".config.partial.py").write_text("model = dict(")
    run_job(tiny_job(tiny, out, iterations=1))
    assert (out / "result.json").is_file()
    assert not (out / ".config.partial.py").exists()


def test_the_folder_is_locked_before_it_is_looked_at(tiny: Path, tmp_path: Path) -> None:
    """Two seeds in one folder: the second waits for no check of the first, and is refused."""
    job = tiny_job(tiny, tmp_path / "run", iterations=1)
    with contextlib.ExitStack() as held:
        take_folder(job.folder, held)
        assert [path.name for path in job.out.iterdir()] == ["in_use.lock"]
        other = f"""
import contextlib, sys
from pathlib import Path
from cissod_bench.errors import UserError
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.training.runner import take_folder
try:
    take_folder(RunFolder(Path({str(job.out)!r})), contextlib.ExitStack())
except UserError as error:
    print(error)
"""
        shown = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
        assert "a run is under way in this folder" in shown.stdout, shown.stderr


def test_a_checkpoint_too_many_after_a_kill_is_removed(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", iterations=3)
    run_job(job)
    (job.out / "result.json").unlink()
    folder = job.out / "checkpoints"
    shutil.copy(folder / "iter_2.pth", folder / "iter_1.pth")  # killed between writing the third and removing the first
    run_job(job)
    assert sorted(path.name for path in folder.iterdir()) == ["iter_2.pth", "iter_3.pth"]
