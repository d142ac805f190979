"""Runs of a sweep in their own processes: signals, places, failures."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.errors import Stopped, UserError
from cissod_bench.launch import side_by_side
from cissod_bench.launch.side_by_side import run_all, slots
from cissod_bench.launch.status import Member
from cissod_bench.training.spec import RunSpec

RUN = """
import signal, sys, time
def stop(number, frame):
    print(128 + number, flush=True)
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, stop)
print("ready", flush=True)
time.sleep(60 if sys.argv[1] == "long" else 0.5)
"""


def programs(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, count: int) -> list[Member]:
    """Runs whose processes do nothing but say when they are ready, and wait."""
    monkeypatch.setattr(side_by_side, "command_of", lambda member: [sys.executable, "-c", RUN, kind])
    spec = RunSpec(task="shapes", method="gbs")
    return [Member(f"run-{number}", folder, spec) for number in range(count)]


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", True])
def test_places_are_counted_from_one(number: Any) -> None:
    for given in ({"jobs": number, "gpus_per_run": None}, {"jobs": None, "gpus_per_run": number}):
        with pytest.raises(UserError, match=r"give a whole number from 1 on"):
            slots(**given)


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGUSR1),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
    ],
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_signal_to_a_sweep_stops_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, passed_on: signal.Signals, at_once: int
) -> None:
    members = programs(monkeypatch, tmp_path, "long", 3)

    def not_taken(number: int, frame: Any) -> None:
        raise AssertionError(f"signal {number} was not passed on")

    before = signal.signal(sent, not_taken)
    started: list[str] = []
    try:
        with sending(sent, *(member.log for member in members[:at_once])), pytest.raises(Stopped) as stopped:
            run_all(members, lambda _, member: started.append(member.name), pytest.fail, [{}] * at_once)
        assert signal.getsignal(sent) is not_taken
    finally:
        signal.signal(sent, before)
    assert started == ["run-0", "run-1"][:at_once]
    for member in members[:at_once]:
        assert str(128 + passed_on) in member.log.read_text()
        assert member.name in str(stopped.value)


def test_a_sweep_under_nohup_outlives_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = programs(monkeypatch, tmp_path, "short", 1)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with sending(signal.SIGHUP, member.log):
            run_all([member], lambda *_: None, pytest.fail)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_as_many_runs_at_a_time_as_there_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys, time; time.sleep(0.3); sys.exit(os.environ['PLACE'] == '1')"
    members = programs(monkeypatch, tmp_path, "short", 5)
    monkeypatch.setattr(side_by_side, "command_of", lambda member: [sys.executable, "-c", code])
    under_way: list[int] = []
    original = side_by_side._start

    def counting(member: Member, *place: Any) -> Any:
        started = original(member, *place)
        processes.append(started.process)
        under_way.append(sum(process.poll() is None for process in processes))
        return started

    processes: list[Any] = []
    failures: list[str] = []
    monkeypatch.setattr(side_by_side, "_start", counting)
    run_all(members, lambda *_: None, failures.append, [{"PLACE": "0"}, {"PLACE": "1"}])
    assert max(under_way) == 2
    assert len(processes) == 5
    assert 1 <= len(failures) <= 4  # those in the second place


def test_places_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("cissod_bench.training.process.device.usable_cores", lambda: 8)
    assert slots(None, None) == [{}]
    assert slots(4, None) == [{"OMP_NUM_THREADS": "2"}] * 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert slots(None, 1) == [{"CUDA_VISIBLE_DEVICES": name} for name in "357"]
    assert slots(1, 2) == [{"CUDA_VISIBLE_DEVICES": "3,5"}]
    for jobs, each in ((2, 2), (None, 4), (4, 1)):
        with pytest.raises(UserError, match="this machine has 3"):
            slots(jobs, each)


@contextlib.contextmanager
def sending(number: signal.Signals, *logs: Path) -> Iterator[None]:
    """Send a signal to this process when the programs that it watches are ready."""
    test = os.getpid()

    def send() -> None:
        while not all(log.exists() and "ready" in log.read_text() for log in logs):
            time.sleep(0.01)
        os.kill(test, number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


def test_a_sweep_that_is_killed_takes_its_run_with_it(tmp_path: Path) -> None:
    code = RUN.replace('print("ready"', 'import os; print("ready", os.getpid()')
    sweep = f"""
import sys
from pathlib import Path
from cissod_bench.launch import side_by_side
from cissod_bench.launch.status import Member
from cissod_bench.training.spec import RunSpec
side_by_side.command_of = lambda member: [sys.executable, "-c", {code!r}, "long"]
member = Member("run", Path({str(tmp_path)!r}), RunSpec(task="shapes", method="rfs"))
side_by_side.run_all([member], print, print)
"""
    log = tmp_path / "sweep" / "run.log"
    process = subprocess.Popen([sys.executable, "-c", sweep])
    while "ready" not in (log.read_text() if log.exists() else ""):
        time.sleep(0.01)
    run = int(log.read_text().split()[1])
    process.kill()
    process.wait()
    for _ in range(1000):
        if not Path(f"/proc/{run}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{run}").exists()
