"""A run that is killed, stopped, or out of disk space goes on as if nothing had happened; real processes and signals.

Runs are children made by fork, so that the imports are there; they end as the operating system ends them.
"""

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from cissod_bench.errors import Stopped, UserError
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import load_result
from cissod_bench.ssod.hooks.checkpoints import checkpoints, is_whole, newest_readable
from cissod_bench.ssod.hooks.progress import ProgressHook
from cissod_bench.ssod.stopping import stop_on_signals
from cissod_bench.training import build_config as config
from cissod_bench.training.job import Job
from cissod_bench.training.runner import run_job
from tests import tiny as tiny_runs

OF_THE_MACHINE = ("time", "data_time", "memory", "images_per_second", "memory_mib")
"""Scalars that no two runs have in common."""


def tiny_job(tiny: Path, out: Path, **changes: Any) -> Job:
    """A tiny job that a forked process can evaluate: hotcoco's threads, once started, are not there in a fork."""
    return tiny_runs.tiny_job(tiny, out, **{"evaluator": "pycocotools", **changes})


def in_child(action: Callable[[], Any]) -> int:
    """Exit status of a child process that does something: 0, -signal, 2 for UserError, Stopped's code, 1 for others."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with SIGINT ignored
        status = 1
        try:
            action()
            status = 0
        except UserError as error:
            print(error, file=sys.stderr)
            status = 2
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            status = stopped.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_until(job: Job, iteration: int, number: int = signal.SIGKILL) -> int:
    """Run a job in a child that gets a signal after so many iterations, before anything is written of the last one."""

    def act() -> None:
        original = ProgressHook.before_train_iter if hasattr(ProgressHook, "before_train_iter") else None

        def before(self: ProgressHook, runner: Any, *args: Any, **kwargs: Any) -> None:
            if original is not None:
                original(self, runner, *args, **kwargs)
            if runner.iter == iteration:
                os.kill(os.getpid(), number)

        ProgressHook.before_train_iter = before  # type: ignore[method-assign]
        run_job(job)

    return in_child(act)


def log_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "scalars.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in OF_THE_MACHINE} for line in lines]


def assert_same_run(one: Path, other: Path, iterations: int) -> None:
    """Weights, optimiser, method state, logs and AP, all bit-equal."""
    expected, actual = (
        torch.load(out / "checkpoints" / f"iter_{iterations}.pth", weights_only=False) for out in (one, other)
    )
    assert expected["state_dict"].keys() == actual["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert torch.equal(actual["state_dict"][name], value), name
    for index, slots in expected["optimizer"]["state"].items():
        for name, value in slots.items():
            assert torch.equal(torch.as_tensor(actual["optimizer"]["state"][index][name]), torch.as_tensor(value))
    assert log_of(other) == log_of(one)
    assert (other / "observables.jsonl").read_text() == (one / "observables.jsonl").read_text()
    assert (other / "detections.json").read_bytes() == (one / "detections.json").read_bytes()
    assert load_result(other / "result.json").metrics == load_result(one / "result.json").metrics


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of four iterations that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert in_child(lambda: run_job(tiny_job(tiny, out))) == 0
    return out


@pytest.mark.parametrize("method", ["gbs"])
def test_killed_and_resumed_is_as_never_killed(
    method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "checkpoint_interval", lambda job: 2)
    check_killed_three_times(method, tiny, tmp_path, iterations=6, kills={1: 0, 3: 2, 5: 4})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_every_method_killed_three_times_is_as_never_killed(
    method: str, seed: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a hundred kills in all, at random steps, one to four after a checkpoint, with evaluations on the way."""
    monkeypatch.setattr(config, "checkpoint_interval", lambda job: 5)
    chosen = random.Random(f"kills of {method}, {seed}")
    kills = {start + chosen.randrange(1, 5): start for start in sorted(chosen.sample(range(0, 20, 5), 3))}
    overrides = {"train_cfg.val_interval": 10}
    check_killed_three_times(method, tiny, tmp_path, iterations=24, kills=kills, overrides=overrides)


def check_killed_three_times(
    method: str, tiny: Path, folder: Path, iterations: int, kills: dict[int, int], **changes: Any
) -> None:
    """Compare a run with one that is killed after the iterations of `kills` and goes on from those it gives them."""
    changes |= {"method": method, "iterations": iterations, "hidden": tiny / "train.json"}
    assert in_child(lambda: run_job(tiny_job(tiny, folder / "whole", **changes))) == 0
    killed = tiny_job(tiny, folder / "killed", **changes)
    for iteration, start in kills.items():
        assert run_until(killed, iteration) == -signal.SIGKILL
        newest = [path.name for path in checkpoints(killed.out / "checkpoints")][:1]
        assert newest == ([f"iter_{start}.pth"] if start else [])
        assert start < iteration, "or nothing would be done again"
        assert not (killed.out / "result.json").exists()
    assert in_child(lambda: run_job(killed)) == 0
    assert_same_run(folder / "whole", killed.out, iterations)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_with_a_checkpoint(
    number: signal.Signals, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job(tiny, tmp_path / "run", iterations=100)  # checkpoints at every fifth iteration
    assert run_until(job, 2, number) == 128 + number
    assert [path.name for path in checkpoints(job.out / "checkpoints")] == ["iter_3.pth"]
    said = capfd.readouterr().err
    assert f"Stopped by {number.name} at iteration 3" in said
    assert "Run the same command again to resume from there" in said


def test_a_stopped_run_goes_on_exactly(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two lines of the log and two checkpoints, with pseudo labels on the way to the pool."""
    for interval in ("log_interval", "checkpoint_interval"):
        monkeypatch.setattr(config, interval, lambda job: 4)
    changes = {"method": "gbs", "iterations": 8, "hidden": tiny / "train.json"}
    whole, stopped = (tiny_job(tiny, tmp_path / name, **changes) for name in ("whole", "stopped"))
    assert in_child(lambda: run_job(whole)) == 0
    assert run_until(stopped, 5, signal.SIGTERM) == 128 + signal.SIGTERM
    assert [path.name for path in checkpoints(stopped.out / "checkpoints")] == ["iter_6.pth", "iter_4.pth"]
    assert in_child(lambda: run_job(stopped)) == 0
    assert_same_run(whole.out, stopped.out, 8)


def test_a_signal_to_all_processes_of_the_job_spares_the_loader_workers(tiny: Path, tmp_path: Path) -> None:
    """As Slurm sends it: a worker that dies takes the run along before its checkpoint is written."""
    job = tiny_job(tiny, tmp_path / "run", workers=2, iterations=100)

    def act() -> None:
        os.setpgrp()

        def before(self: ProgressHook, runner: Any, *args: Any, **kwargs: Any) -> None:
            if runner.iter == 2:
                os.killpg(0, signal.SIGTERM)
                time.sleep(0.5)

        ProgressHook.before_train_iter = before  # type: ignore[method-assign]
        run_job(job)

    assert in_child(act) == 128 + signal.SIGTERM
    assert [path.name for path in checkpoints(job.out / "checkpoints")] == ["iter_3.pth"]


def test_killed_in_the_evaluation_it_is_done_again(whole: Path, tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "killed")

    def act() -> None:
        ProgressHook.after_val_iter = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
        run_job(job)

    assert in_child(act) == -signal.SIGKILL
    assert in_child(lambda: run_job(job)) == 0
    assert_same_run(whole, job.out, 4)


def test_killed_while_a_checkpoint_is_written_the_one_before_stays(whole: Path, tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "killed")

    def act() -> None:
        original = Runner.save_checkpoint

        def half(self: Runner, out_dir: str, filename: str, **options: Any) -> None:
            original(self, out_dir, filename, **options)
            if self.iter + 1 == 3:
                os.truncate(Path(out_dir) / filename, 100_000)
                os.kill(os.getpid(), signal.SIGKILL)

        Runner.save_checkpoint = half
        run_job(job)

    assert in_child(act) == -signal.SIGKILL
    folder = job.out / "checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["iter_2.pth", "iter_1.pth"]
    assert len(list(folder.iterdir())) == 3, "and the half-written one under another name"
    assert in_child(lambda: run_job(job)) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["iter_3.pth", "iter_4.pth"]
    assert_same_run(whole, job.out, 4)


def test_without_space_for_a_checkpoint_the_one_before_stays(
    whole: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tiny_job(tiny, tmp_path / "full")
    assert run_until(job, 2) == -signal.SIGKILL
    folder = job.out / "checkpoints"
    size = (folder / "iter_2.pth").stat().st_size

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        run_job(job)

    assert in_child(act) == 2
    assert "the checkpoint of iteration 3 could not be written" in capfd.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["iter_1.pth", "iter_2.pth"]
    assert in_child(lambda: run_job(job)) == 0
    assert_same_run(whole, job.out, 4)


def test_a_flipped_byte_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    for iteration in (2, 3):
        torch.save({"state_dict": {"weight": torch.arange(1000)}}, tmp_path / f"iter_{iteration}.pth")
    newest = tmp_path / "iter_3.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    assert not is_whole(newest)
    assert newest_readable(newest.parent) == (newest.with_name("iter_2.pth"), [newest])


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(tiny: Path, tmp_path: Path) -> None:
    one = tiny_job(tiny, tmp_path / "one")
    assert run_until(one, 2) == -signal.SIGKILL
    other = tiny_job(tiny, tmp_path / "other", method="gbs", seed=3)
    assert run_until(other, 1) == -signal.SIGKILL
    content = (one.out / "checkpoints" / "iter_2.pth").read_bytes()
    (other.out / "checkpoints" / "iter_2.pth").write_bytes(content)
    message = r"iter_2.pth belongs to another run: train_seed is 0, not 3; method is 'soft-teacher', not "
    with pytest.raises(UserError, match=message):
        run_job(other)


def test_a_run_of_another_split_is_refused_with_the_difference(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run")
    assert run_until(job, 1) == -signal.SIGKILL
    config = job.out / "config.py"
    config.write_text(config.read_text().replace(job.split.digest, "0" * 64))
    with pytest.raises(UserError, match=r"holds another run: split_digest is '0000"):
        run_job(job)


def test_a_second_interrupt_stops_at_once() -> None:
    """Not one that follows at once: launchers pass Ctrl-C on to processes that have had it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == signal.SIGINT
            request.time -= 10
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal is None, "as nohup and shells in the background want it"
    finally:
        signal.signal(signal.SIGINT, before)
