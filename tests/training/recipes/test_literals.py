"""Files of settings against Python itself, which executes the same files; and what is not read."""

from pathlib import Path
from typing import Any

import pytest

from cissod_bench.errors import UserError
from cissod_bench.training.recipes.literals import read_settings

FILE = Path("detector.py")

GOOD = {
    "values": 'a = 1\nb = -2.5\nc = "text"\nd = None\ne = True\nf = [1, (2, "x")]\n',
    "dictionaries": 'base = dict(type="X", depth=50)\nmodel = dict(base, width={"a": 1}, **{"z": 2})\n',
    "names and arithmetic": "n = 3\nwidth = 32 * n + 1\nhalf = width // 2\nlr = 0.01 / n\nscales = [n] * 4 + [2 * n]\n",
    "docstring and several targets": '"""A detector."""\na = b = (1, 2)\n',
    "later values win": "a = 1\na = a + 1\n",
}
BAD = {
    "import": ("import os\n", "line 1: only assignments"),
    "call": ('a = 1\nb = __import__("os").system("true")\n', 'line 2: "__import__'),
    "attribute": ("a = dict.fromkeys([1])\n", "line 1"),
    "unknown name": ("a = b\n", "line 1: b is not assigned"),
    "no Python": ("a = (\n", "line 1: not Python"),
    "f-string": ('a = 1\nb = f"{a}"\n', "line 2"),
    "comprehension": ("a = [x for x in (1, 2)]\n", "line 1"),
    "lambda": ("a = lambda: 1\n", "line 1"),
    "attribute target": ("a = {}\na.b = 1\n", "line 2: only assignments"),
    "number as a key": ("a = {1: 2}\n", "line 1: 1 is no text"),
    "nonsense": ('a = 1 + "x"\n', "line 1: cannot be calculated"),
    "division by zero": ("a = 1 / 0\n", "line 1: cannot be calculated"),
    "huge list": ("a = [0] * 10 ** 9\n", "line 1"),
    "huge text": ('a = "x" * 4000000000\n', "line 1: the value is too large"),
    "huge number": ("a = 99999\nb = a * a\nc = b * b\n", "line 2: the value is too large"),
    "deep": ("a = " + "[" * 5000 + "]" * 5000 + "\n", "detector.py"),
    "NUL": ("a = 1\0\n", "not Python"),
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD)
def test_values_are_those_that_python_gives(source: str) -> None:
    expected: dict[str, Any] = {}
    exec(source, expected)
    del expected["__builtins__"]
    expected.pop("__doc__", None)
    assert read_settings(FILE, source.encode()) == expected


@pytest.mark.parametrize(("source", "message"), BAD.values(), ids=BAD)
def test_nothing_else_is_read(source: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(FILE, source.encode())
    assert message in str(error.value)
    assert "detector.py" in str(error.value)
