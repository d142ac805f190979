"""Remarks are sentences on standard error, without the line of source that Python adds to warnings."""

import subprocess
import sys

PROGRAM = """
import warnings
from cissod_bench.cli import main
from cissod_bench.errors import Remark

main.app = lambda: [warnings.warn(text, kind) for kind in (Remark, UserWarning) for text in ("one", "one")]
main.main()
"""


def test_a_remark_is_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[:2] == ["Note: one", "Note: one"]
    assert any("UserWarning: one" in line for line in lines[2:])


def test_names_in_remarks_and_warnings_move_no_cursor() -> None:
    program = PROGRAM.replace('"one", "one"', r'"a\x1b[2Jb", "c\u202ed"')
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Note: a\\x1b[2Jb" in done.stderr
    assert "UserWarning: c\\u202ed" in done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())
