"""The published runs of this repository are what they say."""

from pathlib import Path

from cissod_bench import api

RESULTS = Path(__file__).parents[2] / "results"


def test_the_committed_results_pass_every_check() -> None:
    found = api.check_results(RESULTS)
    assert found.problems == []
    embedded = [name for name in found.runs if name.startswith("shapes")]
    assert set(embedded) <= set(found.rescored)
