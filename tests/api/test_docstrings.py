"""Every example of the API runs, in the order of a user's work."""

import doctest
import types
from pathlib import Path
from typing import Any

import pytest

import cissod_bench
from cissod_bench import api

ORDER = ("RunSpec", "data_sources", "check_data", "fetch_data",
         "make_splits", "load_split", "describe_split", "verify_split", "compare_splits", "plot_splits",
         "export_split", "import_split", "prepare", "run", "evaluate", "error_types", "load_results", "report",
         "compare", "pack_submission", "check_results", "state_training", "score", "plot_calibration", "load_detector",
         "export", "sweep")  # fmt: skip
"""Later examples use what earlier ones have made."""
DESCRIBED = ("detectors", "methods", "tasks")


def run_examples(name: str, shown: Any) -> None:
    found = doctest.DocTestFinder(recurse=False).find(shown, name)
    assert sum(len(test.examples) for test in found) >= 2, f"{name} has no example"
    for test in found:
        outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert outcome.failed == 0, name


def test_the_examples_run_in_their_order(workplace: Path) -> None:
    """One test, so that all run in the same process and folder."""
    for name in ORDER:
        run_examples(name, getattr(cissod_bench, name))


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_example_of_describe_runs(name: str, workplace: Path) -> None:
    run_examples(name, getattr(cissod_bench, name).describe)


def test_every_function_has_an_example() -> None:
    public = {name for name in api.__all__ if isinstance(getattr(api, name), types.FunctionType)}
    assert public - {"submit"} == set(ORDER) - {"RunSpec"}, "a job of Slurm needs Slurm"
    assert public - {"submit"} <= set(cissod_bench.__all__)


def test_public_names_are_there_and_typed() -> None:
    assert all(hasattr(cissod_bench, name) for name in cissod_bench.__all__)
    assert dir(cissod_bench) == cissod_bench.__all__
    assert (Path(cissod_bench.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cissod_bench.nonsense  # noqa: B018
