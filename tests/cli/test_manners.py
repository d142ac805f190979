"""How the program speaks: help that is not cut, tables that fit, words that agree in number."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cissod_bench.cli.console import print_table
from cissod_bench.cli.main import app
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.tasks.registry import TASKS
from cissod_bench.version import __version__
from cissod_bench.words import counted

GROUPS = ([], ["splits"], ["list"], ["create"])


def output(*arguments: str, **variables: str) -> str:
    """What `python -m cissod_bench` prints."""
    command = [sys.executable, "-m", "cissod_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **variables}).stdout


def test_the_version() -> None:
    assert output("--version") == f"cissod-bench {__version__}\n"


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_the_lists_of_commands_cut_no_line(group: list[str]) -> None:
    shown = CliRunner().invoke(app, [*group, "--help"], terminal_width=80).output
    assert "..." not in shown.partition("\n\n")[2].replace("COMMAND [ARGS]...", "")
    names = {command.name for command in commands(group).commands.values()}
    assert {line.split()[0] for line in shown.splitlines() if re.match("  [a-z]", line)} >= names


def test_the_name_of_a_command_is_suggested_once() -> None:
    shown = CliRunner().invoke(app, ["list", "method"])
    assert shown.exit_code == 2
    assert shown.output.endswith("No such command 'method'. Did you mean 'methods'?\n")


def commands(group: list[str]) -> Any:
    """The commands of the program, or of a group of it."""
    found: Any = get_command(app)
    return found.commands[group[0]] if group else found


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["compare"], "Run folder to compare with RUN_A."),
        (["splits", "show"], "Split folder written by `make-splits`."),
        (["list", "methods"], "A method or a method file, to show its options."),
    ],
    ids=["compare", "splits show", "list methods"],
)
def test_arguments_have_help_once(command: list[str], words: str) -> None:
    shown = " ".join(CliRunner().invoke(app, [*command, "--help"], terminal_width=80).output.split())
    assert shown.count(words) == 1
    assert shown.lower().count("arguments:") == 1


def test_a_shell_completes_commands() -> None:
    words = {"_CISSOD_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "cissod-bench rep", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("cissod-bench")
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, **words})
    assert done.stdout.split() == ["report"]


ROWS = (("shapes/gbs-theta=0.7-short-seed-0", 18_000, 0.213), ("shapes/soft-teacher-short-seed-0", 6_000, 0.194))
TABLE = Table(
    "t",
    "A table",
    "Caption",
    (
        Column("run", "Run"),
        Column("count", "Images a step", kind="count"),
        Column("why", "Reason"),
        *(Column(f"ap{index}", "all", "AP", "metric") for index in range(8)),
    ),
    tuple(
        (Cell(name), Cell(count), Cell("nobody knows why it ended"), *[Cell(ap, std=0.012)] * 8)
        for name, count, ap in ROWS
    ),
    ranked=0,
)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int | None) -> list[str]:
    """The lines of a table on a terminal of some columns, or in a pipe."""
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    print_table(TABLE)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_table_fits_and_breaks_no_name_and_no_number(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert text.count("21.3 ± 1.2") == text.count("19.4 ± 1.2") == 8
    for name, count, _ in ROWS:
        assert text.count(name) >= 2, "every block of columns says which run it is of"
        assert f"{count:,}" in text


def test_a_table_in_a_pipe_has_one_line_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = (line for line in shown(monkeypatch, capsys, None) if "soft-teacher" in line)
    assert row.split() == [ROWS[1][0], "6,000", *["nobody", "knows", "why", "it", "ended"], *["19.4", "±", "1.2"] * 8]


def test_lists_fit_a_terminal_and_not_a_pipe() -> None:
    narrow = output("list", "tasks", COLUMNS="80")
    assert max(map(len, narrow.splitlines())) <= 80
    assert {word for task in TASKS.values() for word in task.title.split()} <= set(narrow.split())
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "cissod_bench", "list", "tasks"]
    wide = subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout
    assert len(wide.splitlines()) == 1 + len(TASKS)


def test_no_color() -> None:
    script = "import typer; from cissod_bench.cli.console import say; say('red', color=typer.colors.RED)"
    command = ["script", "-qec", f'{sys.executable} -c "{script}"', "/dev/null"]
    with_color = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TERM": "xterm"}).stdout
    if not with_color:
        pytest.skip("this machine has no pseudo-terminals")
    without = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    assert "\033" in with_color
    assert "\033" not in subprocess.run(command, capture_output=True, text=True, env=without).stdout


def test_words_agree_in_number() -> None:
    assert [counted(number, "run") for number in (0, 1, 2, 2_000)] == ["0 runs", "1 run", "2 runs", "2,000 runs"]


@pytest.mark.parametrize("module", ["cissod_bench.training.runner", "cissod_bench.training.trained.predict"])
def test_what_mmdet_says_of_optional_packages_stays_out_of_runs(module: str) -> None:
    """mmengine imports these two packages of mmdet when it looks for a class by name, in the middle of a run."""
    looked_in = "evaluation" if module == "cissod_bench.training.runner" else "datasets"
    script = f"""
from importlib import import_module
from cissod_bench.training.process.quiet import quiet_imports
with quiet_imports():
    import_module("{module}")
import mmdet.{looked_in}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_message_of_ctrl_c_has_a_line_of_its_own() -> None:
    script = (
        "import time\n"
        "from cissod_bench.cli import main\n"
        "@main.app.command('wait')\n"
        "def wait() -> None:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "main.main()\n"
    )
    try:
        process, terminal = pty.fork()
    except OSError:
        pytest.skip("this machine has no pseudo-terminals")
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background of a shell inherits that it is ignored
        os.execv(sys.executable, [sys.executable, "-c", script, "wait"])
    shown = b""
    while b"ready\r\n" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 1000):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert shown.decode() == "ready\r\n^C\r\nInterrupted.\r\n"
