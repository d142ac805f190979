"""Sweeps end to end: one run after the other, and as jobs of submitit's local executor."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.cli.options import cluster_options, slurm_options
from cissod_bench.errors import UserError
from cissod_bench.launch import side_by_side
from cissod_bench.launch import slurm as cluster
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.failure import reason_of
from cissod_bench.launch.side_by_side import run_all
from cissod_bench.launch.status import Member, Note, RunState, state_of, write_note
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.training.spec import RunSpec
from tests.privileges import without_privileges

PROGRAM = [sys.executable, "-m", "cissod_bench.cli.main"]


def write_grid(tiny: Path, folder: Path, grid: str) -> Path:
    shared = {"task": tiny / "task.toml", "split": tiny / "split", "data-root": tiny}
    lines = [f"out = {json.dumps(str(folder / 'runs'))}", "[run]"]
    lines += [f"{name} = {json.dumps(str(path))}" for name, path in shared.items()]
    file = folder / "grid.toml"
    file.write_text("\n".join([*lines, 'device = "cpu"', "threads = 1", "[[grid]]", grid]))
    return file


def sweep(*arguments: Any) -> tuple[int, dict[str, dict[str, str]], str]:
    done = CliRunner().invoke(app, ["sweep", *map(str, arguments), "--json"])
    states = json.loads(done.stdout) if done.stdout else []
    return done.exit_code, {row["run"]: row for row in states}, repr(done.exception)


def test_a_sweep_names_what_fails_goes_on_and_then_skips_what_is_done(tiny: Path, tmp_path: Path) -> None:
    file = write_grid(tiny, tmp_path, 'method = "rfs"\niterations = 1\noption = ["nonsense=1", "theta=0.8"]')
    bad, good = "tiny/rfs-nonsense=1-1-seed-0", "tiny/rfs-theta=0.8-1-seed-0"
    code, states, _ = sweep(file, "--status")
    assert (code, {name: row["state"] for name, row in states.items()}) == (0, {bad: "waiting", good: "waiting"})

    code, states, errors = sweep(file)
    assert code == 1, errors
    assert (states[bad]["state"], states[good]["state"]) == ("failed", "done")
    assert "'nonsense'" in states[bad]["reason"]
    assert "exit code 2" in states[bad]["reason"]
    result = Path(states[good]["out"]) / "result.json"
    written = result.stat().st_mtime_ns

    again, states, _ = sweep(file, "--status")
    assert (again, states[bad]["state"]) == (1, "failed")
    file.write_text(file.read_text().replace('"nonsense=1", ', ""))
    code, states, _ = sweep(file)
    assert (code, [row["state"] for row in states.values()]) == (0, ["done"])
    assert result.stat().st_mtime_ns == written


def test_the_plan_of_a_sweep_has_its_cost_and_what_cannot_run(tiny: Path, tmp_path: Path) -> None:
    file = write_grid(
        tiny, tmp_path, 'method = "rfs"\nschedule = "paper"\nseed = [0, 1]\noption = ["b=1", "theta=0.8"]'
    )
    done = CliRunner().invoke(app, ["sweep", str(file), "--dry-run", "--json"])
    assert done.exit_code == 1, done.exception
    plan = json.loads(done.stdout)
    assert [row["state"] for row in plan["runs"]] == ["cannot run", "waiting"] * 2
    assert plan["hours_left"] == pytest.approx(2 * 40 * 0.18 / 3600)  # r18-small: 0.18 s an iteration
    assert not (tmp_path / "runs").exists()


def member_of(tiny: Path, root: Path, **changes: Any) -> Member:
    fields: dict[str, Any] = {"task": str(tiny / "task.toml"), "split": tiny / "split", "data_root": tiny}
    return Member("run", root, RunSpec(**(fields | {"method": "soft-teacher", "out": root / "run"} | changes)))


def submit_run(tiny: Path, out: Path, iterations: int) -> str:
    """What the command prints; into a file, since the job inherits it and would keep a pipe open."""
    asked = {"--task": tiny / "task.toml", "--split": tiny / "split", "--data-root": tiny, "--out": out}
    more = [str(part) for pair in asked.items() for part in pair]
    more += ["--method", "soft-teacher", "--iterations", str(iterations), "--device", "cpu", "--threads", "1"]
    local = ["--slurm", "--slurm-option", "cluster=local", "--slurm-option", "time=60"]
    printed = out.parent / "printed"
    with printed.open("w") as file:
        code = subprocess.call([*PROGRAM, "run", *more, *local], stdout=file, stderr=file)
    assert code == 0, printed.read_text()
    return printed.read_text()


@pytest.mark.slow
def test_a_job_that_loses_its_place_goes_on_by_itself(tiny: Path, tmp_path: Path) -> None:
    """submitit's local executor: the signal that Slurm sends before it takes a machine away, then a second start."""
    out = tmp_path / "run"
    assert "running" in submit_run(tiny, out, iterations=5)
    member = member_of(tiny, tmp_path, iterations=5)
    assert state_of(member).state == "running"
    job = json.loads(member.note.read_text())["job"]
    wait(lambda: (out / "checkpoints" / "iter_2.pth").exists(), member)
    (task,) = children(int(job))
    os.kill(task, signal.SIGUSR2)
    submit_run(tiny, out, iterations=5)
    assert json.loads(member.note.read_text())["job"] == job, "it is not submitted twice"
    wait(lambda: state_of(member) == RunState("done"), member)
    said = "".join((tmp_path / "sweep" / f"{job}_0_log.{end}").read_text() for end in ("err", "out"))
    assert "Caught signal SIGUSR2" in said
    assert "Requeued job" in said
    assert "Training 5/5" in member.log.read_text()
    assert "Training 1/5" not in member.log.read_text(), "the second start went on"


def wait(until: Any, member: Member) -> None:
    for _ in range(6000):
        if until():
            return
        state = state_of(member)
        assert state.state in ("running", "done"), state.reason
        time.sleep(0.05)
    raise AssertionError(member.log.read_text())


def children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_a_job_that_fails_is_told_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    member = member_of(tiny, tmp_path, task="nonsense")
    job = cluster.submit(
        run_arguments(member.spec),
        member.log,
        member.note.parent,
        {"cluster": "local", "nodes": 1, "gpus": 0, "time": "5"},
    )
    write_note(member, Note(cluster="local", job=job))
    for _ in range(1200):
        if state_of(member).state != "running":
            break
        time.sleep(0.05)
    state = state_of(member)
    assert state.state == "failed"
    assert f"job {job}: Unknown task 'nonsense'" in state.reason


def test_what_sbatch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of shell scripts: nodes, GPUs, time and everything else arrive, and so does the state of the job."""
    programs = tmp_path / "bin"
    programs.mkdir()
    sacct = "JobID|State\\n7|{}\\n7.batch|RUNNING\\n"
    for name, text in {
        "srun": "",
        "sbatch": f"cp $1 {tmp_path}/script; echo Submitted batch job 7",
        "sacct": f"printf '{sacct.format('PENDING')}'",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    options = slurm_options(["partition=gpu", "time=90", "cpus-per-task=5", "account=me"])
    member = Member("rfs", tmp_path, RunSpec(task="shapes", method="rfs"))
    job = cluster.submit(["--task", "shapes"], member.log, member.note.parent, {**options, "nodes": 2, "gpus": 8})
    assert job == "7"
    script = (tmp_path / "script").read_text()
    for line in ("partition=gpu", "time=90", "cpus-per-task=5", "account=me", "nodes=2", "gpus-per-node=8", "requeue"):
        assert f"#SBATCH --{line}\n" in script, line
    assert "#SBATCH --ntasks-per-node=1\n" in script
    assert "#SBATCH --signal=USR2@" in script
    write_note(member, Note(cluster="slurm", job="7"))
    assert state_of(member) == RunState("queued", "job 7")
    (programs / "sacct").write_text(f"#!/bin/sh\nprintf '{sacct.format('NODE_FAIL')}'\n")
    assert "Slurm says NODE_FAIL" in state_of(member).reason


def test_without_slurm_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r'slurm: the job cannot be submitted .*Could not detect "srun"'):
        cluster.submit([], tmp_path / "log", tmp_path, {"cluster": "slurm", "nodes": 1, "gpus": 0, "time": "5"})


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["time"], "write NAME=VALUE"),
        (["cluster=slrm", "time=5"], r"Unknown cluster 'slrm'. Did you mean 'slurm'\?"),
        (["partition=gpu"], "needs --slurm-option time=MINUTES"),
        (["time=1-00:00"], "needs --slurm-option time=MINUTES"),
    ],
)
def test_wrong_options_for_the_cluster(given: list[str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        slurm_options(given)


def test_options_for_a_cluster_need_one() -> None:
    assert cluster_options(False, []) is None
    assert cluster_options(True, ["time=5"]) == {"cluster": "slurm", "time": "5"}
    with pytest.raises(UserError, match="--slurm-option time=5: this option needs --slurm"):
        cluster_options(False, ["time=5"])
    for command in (["run", "--method", "rfs"], ["sweep", "--method", "rfs"]):
        refused = CliRunner().invoke(app, [*command, "--task", "shapes", "--slurm-option", "time=5"])
        assert "this option needs --slurm" in str(refused.exception)


def test_a_run_under_way_is_told_by_its_lock(tmp_path: Path) -> None:
    member = Member("run", tmp_path, RunSpec(task="shapes", method="rfs"))
    member.out.mkdir()
    hold = f"""
import sys
from pathlib import Path
from cissod_bench.results.run_folder import RunFolder
with RunFolder(Path({str(member.out)!r})).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert state_of(member) == RunState("running")
        with pytest.raises(UserError, match="a run is under way in this folder"), RunFolder(member.out).locked():
            pass
        other.kill()
    assert state_of(member) == RunState("waiting"), "the lock went with the process"
    member.note.parent.mkdir()
    member.note.write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        state_of(member)


def test_the_reason_of_a_failure_is_what_was_said_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Training 1/3\nError: no such file: x\nmore\n")
    assert reason_of(log, 2) == f"no such file: x (exit code 2; {log})"
    log.write_text("Traceback\nMemoryError\n")
    assert reason_of(log, 1) == f"MemoryError (exit code 1; {log})"
    log.write_text("")
    assert reason_of(log, -9) == f"no output (killed by signal 9; {log})"


def test_two_sweeps_at_once_do_not_share_a_run_or_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member(name, tmp_path, RunSpec(task="shapes", method="rfs", out=tmp_path / name)) for name in "ab"]
    started: list[str] = []
    monkeypatch.setattr(side_by_side, "command_of", lambda member: [sys.executable, "-c", ""])
    members[0].log.parent.mkdir(parents=True)
    members[0].log.write_text("of the other sweep")
    hold = f"""
import sys
from pathlib import Path
from cissod_bench.io import lock
with lock(Path({str(members[0].log.with_suffix(".lock"))!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        run_all(members, lambda _, member: started.append(member.name), pytest.fail)
        assert started == ["b"]
        assert members[0].log.read_text() == "of the other sweep"
        other.kill()
    states = {"a": RunState("waiting"), "b": RunState("done")}
    monkeypatch.setattr(side_by_side, "state_of", lambda member: states[member.name])
    run_all(members, lambda _, member: started.append(member.name), pytest.fail)
    assert started == ["b", "a"]


def test_the_states_of_a_sweep_need_no_permission_to_write(tmp_path: Path) -> None:
    member = Member("run", tmp_path, RunSpec(task="shapes", method="rfs"))
    member.out.mkdir()
    (member.out / "in_use.lock").touch()
    (tmp_path / "sweep.toml").write_text('[run]\ntask = "shapes"\nmethod = "rfs"\n')
    command = [sys.executable, "-m", "cissod_bench.cli.main", "sweep", str(tmp_path / "sweep.toml"), "--status"]
    found = subprocess.run([*command, "--out", str(tmp_path / "runs"), "--json"], capture_output=True, text=True)
    run = Path(json.loads(found.stdout)[0]["out"])
    run.mkdir(parents=True)
    (run / "in_use.lock").touch()
    before = {path: path.stat().st_mode for path in (run / "in_use.lock", run, run.parent, tmp_path / "runs")}
    for path, mode in before.items():
        path.chmod(mode & 0o555)
    shown = subprocess.run(
        [*command, "--out", str(tmp_path / "runs"), "--json"],
        capture_output=True,
        text=True,
        preexec_fn=without_privileges,
    )
    for path, mode in before.items():
        path.chmod(mode)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)[0]["state"] == "waiting"


@pytest.mark.parametrize(
    "text",
    ["{", '{"failed": 1}', '{"cluster": "slurm", "job": "../../x"}', "\xff", "[" * 5_000, '{"job": "-x y"}'],
)
def test_a_note_that_is_no_note_is_named(tmp_path: Path, text: str) -> None:
    member = Member("run", tmp_path, RunSpec(task="shapes", method="rfs"))
    member.note.parent.mkdir(parents=True)
    member.note.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        state_of(member)
