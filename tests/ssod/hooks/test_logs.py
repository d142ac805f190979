"""What a run says of itself: time left, throughput, TensorBoard, and what stopped it."""

import importlib.util
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.registry import VISBACKENDS

from cissod_bench.errors import UserError
from cissod_bench.results.curves import read_curves
from cissod_bench.ssod.generations import boundaries_after, is_boundary
from cissod_bench.ssod.hooks.progress import WINDOW, ProgressHook, Remaining, evaluations_after
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.training import loggers
from cissod_bench.training.build_config import build_config
from cissod_bench.training.loggers import LOGGERS, backends, choose_loggers
from cissod_bench.training.runner import run_job
from tests.training.test_resume import in_child, run_until, tiny_job


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_right_with_evaluations_and_when_the_pace_changes() -> None:
    clock = Clock()
    remaining = Remaining(evaluation=4, inference=3, clock=clock)
    assert remaining.seconds(10, 1, 1) is None
    remaining.start()
    for _ in range(10):
        clock.now += 2
        remaining.iterated()
    assert remaining.seconds(100, 3, 2) == pytest.approx(200 + 3 * 8 + 2 * 6), "nothing but iterations seen so far"
    clock.now += 50  # the evaluation is none of the iterations
    remaining.evaluated(50)
    remaining.start()
    clock.now += 2
    remaining.iterated()
    assert remaining.seconds(100, 3, 2) == pytest.approx(200 + 3 * 50 + 2 * 6)
    clock.now += 12  # ten of them an inference pass over D_u
    remaining.inferred(10)
    remaining.iterated()
    assert remaining.seconds(100, 3, 2) == pytest.approx(200 + 3 * 50 + 2 * 10)
    for _ in range(WINDOW):
        clock.now += 4
        remaining.iterated()
    assert remaining.seconds(100, 0, 0) == pytest.approx(400), "the run has become slower"


def test_a_resumed_run_counts_from_where_it_stands() -> None:
    """Nothing of the time before the resume, and only what is left of iterations and evaluations."""
    clock = Clock()
    remaining = Remaining(evaluation=0, inference=0, clock=clock)
    remaining.start()
    clock.now += 3
    remaining.iterated()
    runner: Any = SimpleNamespace(max_iters=1000, val_interval=300)
    assert remaining.seconds(1000 - 901, evaluations_after(runner, 901), 0) == pytest.approx(297)
    assert [evaluations_after(runner, done) for done in (1, 300, 301, 900, 901, 1000)] == [4, 4, 3, 2, 1, 1]
    runner.max_iters = 900
    assert [evaluations_after(runner, done) for done in (1, 300, 301, 900)] == [3, 3, 2, 1]


def test_boundaries_to_come_are_counted_as_they_come() -> None:
    for burn_in, iterations, generations in (
        (20, 120, 10),
        (2, 4, 10),
        (0, 50, 7.5),
        (0, 7, 3),
        (30, 20, 4),
        (5, 9, 4),
    ):
        rest = (burn_in, iterations, generations)
        for done in range(iterations + 1):
            expected = sum(is_boundary(each, *rest) for each in range(done + 1, iterations + 1))
            assert boundaries_after(done, *rest) == expected, (done, *rest)


@pytest.mark.parametrize(
    ("method", "options", "passes"),
    [
        ("crest", {"generations": 3, "pick_threshold": 0.05}, 2),
        ("gbs", {"generations": 3, "sweep": True}, 2),
        ("gbs", {"generations": 3}, 0),
    ],
)
def test_the_inference_passes_of_a_run_are_foreseen(
    method: str, options: dict[str, Any], passes: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, foreseen, seen = [], [], []

    class Watched(Remaining):
        def __init__(self, *estimates: float) -> None:
            super().__init__(*estimates)
            runs.append(estimates)

        def seconds(self, iterations: int, evaluations: int, passes: int) -> float | None:
            foreseen.append(len(seen) + passes)
            return super().seconds(iterations, evaluations, passes)

        def inferred(self, seconds: float) -> None:
            super().inferred(seconds)
            seen.append(seconds)

    monkeypatch.setattr("cissod_bench.ssod.hooks.progress.Remaining", Watched)
    job = tiny_job(tiny, tmp_path / "run", method=method, options=options, iterations=8)
    run_job(job)
    assert foreseen == [passes] * 8
    assert len(seen) == passes
    step = sum(job.batch)
    assert runs == [pytest.approx((6 / step / 3, job.split.counts["unlabeled_images"] / step / 3))]


def test_an_evaluation_without_training_has_its_bar(capfd: pytest.CaptureFixture[str]) -> None:
    hook, runner = ProgressHook(), SimpleNamespace(val_dataloader=[None])
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0)
    hook.after_val_epoch(runner)
    assert "Evaluating 1/1" in capfd.readouterr().err


def test_a_resumed_run_says_from_where_and_shows_the_ap_of_every_evaluation(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job(tiny, tmp_path / "run", iterations=4)
    assert run_until(job, 3) < 0
    assert "Resuming" not in capfd.readouterr().err
    newest = max(int(path.stem.removeprefix("iter_")) for path in (job.out / "checkpoints").iterdir())
    assert in_child(lambda: run_job(job)) == 0
    shown = capfd.readouterr().err
    assert f"Resuming at iteration {newest}." in shown
    metrics = job.folder.result().metrics
    values = ", ".join(f"{group} {100 * row['AP']:.1f}" for group, row in metrics.items() if row["AP"] is not None)
    assert f"Iteration 4: AP {values} (percent)" in shown


def test_bars_are_closed_when_a_run_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    hook = ProgressHook()
    bar = hook._open("Evaluating", 3)
    hook._val = bar
    assert bar is not None
    assert bar._bar is not None
    assert bar._bar.live.is_started
    hook.close()
    assert not bar._bar.live.is_started


def test_throughput_and_memory_are_logged(tiny: Path, tmp_path: Path) -> None:
    run_job(tiny_job(tiny, tmp_path / "run"))
    curves = read_curves(tmp_path / "run")
    for name in ("loss", "images_per_second", "memory_mib", "time"):
        assert curves[name][0] == [1, 2, 3, 4]
        assert min(curves[name][1]) > 0
    assert curves["all/AP"][0] == [4]


def test_tensorboard_shows_a_killed_run_without_doubles(tiny: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    job = tiny_job(tiny, tmp_path / "run", loggers=["tensorboard"], iterations=5)
    assert run_until(job, 3) < 0
    assert in_child(lambda: run_job(job)) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    expected = read_curves(job.out)["loss"]
    found = events.Scalars("loss")
    assert [event.step for event in found] == expected[0] == [1, 2, 3, 4, 5]
    assert [event.value for event in found] == pytest.approx(expected[1])


def test_loggers_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_loggers(None) == ()
    assert choose_loggers(["none"]) == ()
    for name in LOGGERS:
        with pytest.raises(UserError, match=f"--logger {name}: the package is not installed. Run `pip install {name}`"):
            choose_loggers([name])
    with pytest.raises(UserError, match=r"Unknown logger 'tensorbord'. Did you mean 'tensorboard'\?"):
        choose_loggers(["tensorbord"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_loggers(None) == ("tensorboard",)
    assert choose_loggers(["wandb", "mlflow"]) == ("wandb", "mlflow")


def test_mmengine_takes_the_configuration_of_every_logger(tmp_path: Path) -> None:
    for options in backends(LOGGERS, tmp_path):
        backend = VISBACKENDS.get(options.pop("type"))
        inspect.signature(backend).bind(**options)


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_that_is_installed_keeps_everything_in_the_run_folder(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"tensorboard": "torch.utils.tensorboard"}.get(name, name), exc_type=ImportError)
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run_job(tiny_job(tiny, tmp_path / "run", iterations=1, loggers=[name]))
    assert not list((tmp_path / "here").iterdir())
    assert any(path.is_file() for path in (tmp_path / "run" / name).rglob("*"))


def test_loggers_do_not_make_another_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job(tiny, tmp_path / "run", iterations=1)
    result = run_job(job)
    monkeypatch.setattr(loggers, "_installed", lambda name: True)
    other = tiny_job(tiny, tmp_path / "run", iterations=1, loggers=["wandb"], damaged_images=3, workers=1)
    assert build_config(other).visualizer != build_config(job).visualizer
    assert run_job(other) == result


@pytest.mark.parametrize(("factor", "said"), [(float("nan"), "is not finite"), (1e6, "has exploded")])
def test_a_bad_loss_stops_the_run_and_names_the_images(
    factor: float, said: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The iteration where it began, though the loss is looked at later, and before a checkpoint of it is written."""
    monkeypatch.setattr("cissod_bench.training.build_config.log_interval", lambda job: 4)
    monkeypatch.setattr("cissod_bench.training.build_config.checkpoint_interval", lambda job: 3)
    original, seen = TeacherStudent.loss_by_gt_instances, {}

    def spoiled(self: TeacherStudent, inputs: Any, samples: Any) -> Any:
        losses = original(self, inputs, samples)
        seen[self.iteration] = [sample.img_id for sample in samples]
        return losses | {"sup_loss_cls": losses["sup_loss_cls"] * (factor if self.iteration >= 4 else 1.0)}

    monkeypatch.setattr(TeacherStudent, "loss_by_gt_instances", spoiled)
    with pytest.raises(UserError, match=f"The loss {said} at iteration 5: .*bad_batch.json"):
        run_job(tiny_job(tiny, tmp_path / "run", iterations=12))
    bad = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert bad["iteration"] == 5
    assert [image["id"] for image in bad["images"] if image["branch"] == "sup"] == seen[4]
    assert all(Path(image["path"]).is_file() for image in bad["images"])
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["iter_3.pth"]
