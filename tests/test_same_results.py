"""Every method gives the results stored for its version: `benchmarks/same_results.py`, and that it can fail."""

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.methods.registry import METHODS
from cissod_bench.training.recipes.detectors import DETECTORS

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "same_results.py"
STORED = Path(__file__).parent / "same_results.json"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def stored() -> dict[str, Any]:
    return dict(json.loads(STORED.read_text()))


def compare(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_gbs_gives_the_stored_results() -> None:
    """The method that has the most parts, so that little of what all methods share can change unseen."""
    assert "0 of 1 differ" in compare("--only", "gbs")


@pytest.mark.slow
def test_every_method_gives_the_stored_results(script: dict[str, Any]) -> None:
    others = [run for run in script["RUNS"] if run != "gbs"]
    assert f"0 of {len(others)} differ" in compare("--only", *others)


def test_every_method_is_stored_at_its_version_with_pseudo_labels(
    script: dict[str, Any], stored: dict[str, Any]
) -> None:
    runs = stored["runs"]
    assert runs.keys() == script["RUNS"].keys()
    assert {method for method, _, _ in script["RUNS"].values()} == {*METHODS, "own.py"}
    current = {name: method.version for name, method in METHODS.items()}
    other = {run["method"] for run in runs.values() if run["version"] != current.get(run["method"], run["version"])}
    assert other == set(), f"The stored values are of another version. {script['WHAT_TO_DO']}"
    few = [name for name, run in runs.items() if run["pseudo_labels"] < script["LEAST_PSEUDO_LABELS"]]
    assert few == list(script["WITHOUT_PSEUDO_LABELS"]) == ["supervised", "full-labels"]
    assert len({run["weights"] for run in runs.values()}) == len(runs), "two methods did the same"
    assert all(len(run["losses"]) == 20 and len(run["class_AP"]) == 12 for run in runs.values())


def test_the_defaults_are_the_stored_ones(script: dict[str, Any], stored: dict[str, Any]) -> None:
    changed = script["changed_defaults"](stored["defaults"], script["defaults"]())
    assert changed == [], script["WHAT_TO_DO"]


def test_a_changed_default_is_found(
    script: dict[str, Any], stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theta 0.9 -> 0.88 in the recipe, which soft-teacher starts from; gamma 1 -> 1.2 in the options of gbs."""
    monkeypatch.setitem(vars(DETECTORS["r18-small-pretrained"]), "theta", 0.88)
    now = {**script["defaults"](), "gbs.gamma": 1.2}
    assert script["changed_defaults"](stored["defaults"], now) == [
        "gbs.gamma is 1.2, not 1.0",
        "recipe.theta is 0.88, not 0.9",
    ]


def test_every_difference_is_found(script: dict[str, Any], stored: dict[str, Any]) -> None:
    values = stored["runs"]["gbs"]
    assert script["differences"](values, copy.deepcopy(values)) == []
    other = copy.deepcopy(values)
    other["weights"] = "0" * 64
    other["scalars"]["loss"] = "0"
    del other["diagnostics"]["copies"]
    assert script["differences"](values, other) == ["weights", "scalars.loss", "diagnostics.copies"]
    other["version"] += 1
    said = f"the values are of version {values['version']} of gbs, which is at version {values['version'] + 1}"
    assert script["differences"](values, other) == script["loose_differences"](values, other) == [said]


def test_another_machine_is_given_some_room_and_no_more(script: dict[str, Any], stored: dict[str, Any]) -> None:
    values = stored["runs"]["gbs"]

    def moved(loss: float, ap: float) -> list[str]:
        other = copy.deepcopy(values)
        other["weights"] = "0" * 64
        other["losses"] = [(1 + loss * (-1) ** i) * value for i, value in enumerate(values["losses"])]
        other["class_AP"] = [value + ap for value in values["class_AP"]]
        return list(script["loose_differences"](values, other))

    assert moved(0.016, 0.029) == []
    assert moved(0.018, 0.0) == ["loss by 1.80% on average, more than 1.7%"]
    assert moved(0.0, -0.04) == ["AP by 0.040 a class, more than 0.03"]


def test_values_are_added_to_those_of_the_same_machine(script: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    for run, value in (("gbs", 1), ("rfs", 2), ("gbs", 3)):
        script["store"](file, run, {"loss": value}, {"gbs.gamma": value})
    written = json.loads(file.read_text())
    assert list(written["runs"].items()) == [("rfs", {"loss": 2}), ("gbs", {"loss": 3})]
    assert written["defaults"] == {"gbs.gamma": 3}
    file.write_text(json.dumps({**written, "machine": "another"}))
    script["store"](file, "rfs", {"loss": 4}, {})
    assert json.loads(file.read_text())["runs"] == {"rfs": {"loss": 4}}


def test_a_digest_follows_names_kinds_shapes_and_values(script: dict[str, Any]) -> None:
    numpy, digest = script["np"], script["digest"]
    one = numpy.arange(6, dtype=numpy.float32)
    found = {
        digest([("a", one)]), digest([("b", one)]), digest([("a", one.astype(numpy.float64))]),
        digest([("a", one.reshape(2, 3))]), digest([("a", numpy.nextafter(one, 9))]),
    }  # fmt: skip
    assert len(found) == 5
    assert digest([("a", one.copy())]) == digest([("a", one)])
