"""Bootstrap intervals of published rows: where their detections are, and of a ground truth that is made anew."""

from pathlib import Path

import pytest

from cissod_bench import api
from cissod_bench.evaluation.inputs import read_ground_truth
from cissod_bench.results import published as published_results
from cissod_bench.synthetic import shapes
from tests.results.published import make_run, publish


def labels(*folders: Path) -> list[list[str]]:
    """Labels in the tables of the spread over images."""
    made = api.report(folders, published=True, bootstrap=10)
    return [[str(cells[0].value) for cells in table.rows] for table in made.images]


def test_published_rows_have_intervals_where_their_detections_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.generate("shapes", tmp_path / "data", 0, train_images=1)
    truth = read_ground_truth(tmp_path / "data" / "val.json")
    own = make_run(tmp_path / "runs" / "own", truth)
    packed = publish(tmp_path, "one", make_run(tmp_path / "other" / "run", truth, seed=1))
    monkeypatch.setattr(published_results, "published_folder", lambda: tmp_path / "results")

    assert labels(own) == [["soft-teacher", "soft-teacher, published"]]
    assert labels() == [["soft-teacher, published"]], "of a ground truth that the record names by name alone"
    (packed / "detections.json.xz").unlink()
    assert labels(own) == [["soft-teacher"]]
    assert labels() == []
