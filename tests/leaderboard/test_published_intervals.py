"""Bootstrap intervals of published rows: where their detections are, and of a ground truth that is made anew."""

from pathlib import Path

import pytest

from cissod_bench import api
from cissod_bench.errors import UserError
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


def test_one_table_without_ground_truth_costs_no_other_its_intervals(tmp_path: Path) -> None:
    shapes.generate("shapes", tmp_path / "data", 0, train_images=1)
    truth = read_ground_truth(tmp_path / "data" / "val.json")
    make_run(tmp_path / "runs" / "here", truth)
    make_run(tmp_path / "runs" / "gone", truth, task="mine")
    (tmp_path / "data" / "val.json").unlink()
    made = api.report(tmp_path / "runs", bootstrap=10)
    assert len(made.images) == 1, "the ground truth of an embedded task is made anew"
    notes = {table.title.split()[0]: " ".join(table.notes) for table in made.tables}
    assert "No spread over images" in notes["mine"]
    assert "the ground truth of the run does not exist" in notes["mine"]
    assert "No spread" not in notes["shapes"]
    with pytest.raises(UserError, match="ground truth of the run does not exist"):
        api.report(tmp_path / "runs" / "gone", bootstrap=10)


def test_the_baseline_is_a_method_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes.generate("shapes", tmp_path / "data", 0, train_images=1)
    truth = read_ground_truth(tmp_path / "data" / "val.json")
    own = make_run(tmp_path / "runs" / "own", truth, method="gbs", seed=1)
    publish(tmp_path, "one", make_run(tmp_path / "other" / "run", truth))
    monkeypatch.setattr(published_results, "published_folder", lambda: tmp_path / "results")
    with pytest.raises(UserError, match=r"Unknown method among these runs 'gsb'. Did you mean 'gbs'\?"):
        api.report(own, bootstrap=10, baseline="gsb")
    (table,) = api.report(own, bootstrap=10).tables
    assert "No row of soft-teacher, with its default options, to compare with over images." in table.notes
    (images,) = api.report(own, bootstrap=10, published=True).images
    assert "all_difference" in {column.name for column in images.columns}, "a published row serves"
