"""How the program speaks: help that is not cut, tables that fit, words that agree in number."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.version import __version__

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
    assert "..." not in shown.split("Commands:")[1]


def test_a_shell_completes_commands() -> None:
    words = {"_CISSOD_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "cissod-bench rep", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("cissod-bench")
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, **words})
    assert done.stdout.split() == ["report"]
