"""Every method gives the results of the version before: `benchmarks/same_results.py`, and that it can fail."""

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cissod_bench.methods.registry import METHODS

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "same_results.py"
STORED = Path(__file__).parent / "same_results.json"


@pytest.mark.slow
def test_every_method_gives_the_stored_bits() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    if "is of another machine" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 runs, 0 differ" in done.stdout


def test_every_method_has_stored_values_with_pseudo_labels_in_them() -> None:
    script = runpy.run_path(str(SCRIPT))
    stored = json.loads(STORED.read_text())["runs"]
    assert stored.keys() == script["RUNS"].keys()
    assert {method for method, _, _ in script["RUNS"].values()} == {*METHODS, "own.py"}
    few = [name for name, run in stored.items() if run["pseudo_labels"] < script["LEAST_PSEUDO_LABELS"]]
    assert few == list(script["WITHOUT_PSEUDO_LABELS"]) == ["supervised", "full-labels"]
    assert len({run["weights"] for run in stored.values()}) == len(stored), "two methods did the same"


def test_every_difference_is_found() -> None:
    script = runpy.run_path(str(SCRIPT))
    values = json.loads(STORED.read_text())["runs"]["gbs"]
    assert script["differences"](values, copy.deepcopy(values)) == []
    other = copy.deepcopy(values)
    other["weights"] = "0" * 64
    other["scalars"]["loss"] = "0"
    del other["diagnostics"]["copies"]
    assert script["differences"](values, other) == ["weights", "scalars.loss", "diagnostics.copies"]


def test_a_digest_follows_names_kinds_shapes_and_values() -> None:
    script = runpy.run_path(str(SCRIPT))
    numpy, digest = script["np"], script["digest"]
    one = numpy.arange(6, dtype=numpy.float32)
    found = {
        digest([("a", one)]), digest([("b", one)]), digest([("a", one.astype(numpy.float64))]),
        digest([("a", one.reshape(2, 3))]), digest([("a", numpy.nextafter(one, 9))]),
    }  # fmt: skip
    assert len(found) == 5
    assert digest([("a", one.copy())]) == digest([("a", one)])
