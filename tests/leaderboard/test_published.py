"""Published runs beside one's own, and the paper's numbers that disagree with measured ones."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench import api
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.leaderboard.comparable import RunSet, Spread, comparable_run_sets
from cissod_bench.leaderboard.every_number import tidy_table
from cissod_bench.leaderboard.gains import gain
from cissod_bench.leaderboard.tables import disagrees, paper_table, run_set_table
from cissod_bench.results import published as published_results
from cissod_bench.results.record import Result, write_result
from tests.leaderboard.runs import STANDARDS, make_record, paper_record


def ap(value: float) -> dict[str, float]:
    return {"all": value, "maj": value, "min": value}


def with_paths(*records: Result) -> list[tuple[Path, Result]]:
    return [(Path(f"{index}/result.json"), record) for index, record in enumerate(records)]


OWN = with_paths(make_record(ap(0.20), method="gbs"), make_record(ap(0.10), method="supervised"))
PUBLISHED = with_paths(
    *(make_record(ap(0.30 + seed / 100), method="gbs", train_seed=seed) for seed in (0, 1, 2)),
    *(make_record(ap(0.15), method="supervised", train_seed=seed) for seed in (0, 1, 2)),
    make_record(ap(0.40), method="rfs", train_seed=0, iterations=6_000),
)


def only(own: list[tuple[Path, Result]]) -> RunSet:
    (found,) = comparable_run_sets(own, PUBLISHED)
    return found


def test_published_rows_stand_below_with_their_own_seeds_and_no_rank() -> None:
    rows = only(OWN).rows
    assert [(row.label, row.seeds, row.ranked) for row in rows] == [
        ("gbs", (0,), True),
        ("supervised", (0,), True),
        ("gbs, published", (0, 1, 2), False),
        ("supervised, published", (0, 1, 2), False),
    ]
    mean = rows[2].spread("all", "AP")
    assert mean is not None
    assert mean.mean == pytest.approx(0.31)
    table = run_set_table(only(OWN))
    assert [row[0].value for row in table.rows] == [1, 2, None, None]
    assert table.place(2, 3) is None, "the best AP, but not in the competition"


def test_the_same_seed_on_two_machines_is_no_contradiction() -> None:
    assert all(row.problem == "" for row in only(OWN).rows)
    as_one = comparable_run_sets([*OWN, *PUBLISHED[:1]])
    assert any("different numbers" in row.problem for row in as_one[0].rows), "as without the mark"


def test_gains_are_over_runs_of_the_same_origin() -> None:
    run_set = only(OWN)
    gains = {row.label: gain(run_set, row, "all", "AP") for row in run_set.rows}
    assert [round(found.mean, 6) for found in gains.values() if found] == [0.1, 0.16]


def test_published_runs_alone_are_all_shown_and_ranked() -> None:
    sets = comparable_run_sets([], PUBLISHED)
    assert [[(row.label, row.ranked) for row in run_set.rows] for run_set in sets] == [
        [("rfs, published", True)],
        [("gbs, published", True), ("supervised, published", True)],
    ]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own runs in `runs`, published ones in `results`, which is where the package looks."""
    for folder, runs in (("runs", OWN), ("results", PUBLISHED)):
        for path, record in runs:
            write_result(tmp_path / folder / path, record)
    monkeypatch.setattr(published_results, "published_folder", lambda: tmp_path / "results")
    return tmp_path


def test_the_report_shows_them_on_request(folders: Path) -> None:
    labels = [row.label for row in api.report(folders / "runs").run_sets[0].rows]
    assert labels == ["gbs", "supervised"]
    made = api.report(folders / "runs", folders / "report", published=True)
    assert [row.label for run_set in made.run_sets for row in run_set.rows] == [
        "gbs", "supervised", "gbs, published", "supervised, published",
    ]  # fmt: skip
    assert "Published rows have seeds of their own" in (folders / "report" / "report.md").read_text()
    rows = json.loads((folders / "report" / "results.json").read_text())["rows"]
    assert {(row["method"], row["published"]) for row in rows} == {
        ("gbs", False), ("gbs", True), ("supervised", False), ("supervised", True),
    }  # fmt: skip
    assert len(api.report(published=True).run_sets) == 2


def test_the_command_needs_folders_or_published(folders: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["report"]).exception, UserError)
    shown = CliRunner().invoke(app, ["report", "--published", "--json"])
    assert {row["published"] for row in json.loads(shown.stdout)["rows"]} == {True}
    for file in (folders / "results").rglob("result.json"):
        file.unlink()
    assert CliRunner().invoke(app, ["report", str(folders / "runs"), "--published"]).exit_code == 0
    with pytest.raises(UserError, match="no published runs yet"):
        api.report(published=True)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [(0.236, None, False), (0.246, None, False), (0.247, None, True), (0.225, None, True),
     (0.256, 0.011, False), (0.259, 0.011, True), (0.245, 0.001, False), (0.247, 0.001, True)],
)  # fmt: skip
def test_a_point_and_two_standard_deviations_disagree(mean: float, std: float | None, expected: bool) -> None:
    """The paper: 23.6."""
    assert disagrees(Spread(mean, std, None, 1 if std is None else 3), 23.6) is expected


def test_rows_that_disagree_with_the_paper_are_marked() -> None:
    """Table 1 has 23.6, 31.0 and 1.5 for Soft Teacher, and 26.5, 30.7 and 13.9 for gbs."""
    (run_set,) = comparable_run_sets(
        with_paths(
            paper_record({"all": 0.24, "maj": 0.30, "min": 0.05}),
            paper_record({"all": 0.26, "maj": 0.31, "min": 0.13}, method="gbs"),
        )
    )
    table = run_set_table(run_set, standards=STANDARDS)
    marks = {cells[1].value: [cell.mark for cell in cells if cell.mark] for cells in table.rows}
    assert marks == {"gbs": [], "soft-teacher": ["≠"]}
    where = next(i for i, column in enumerate(table.columns) if column.name == "min_difference")
    assert table.rows[1][where].mark == "≠"
    assert any(note.startswith("≠ differs from the paper's number by more than 1 point") for note in table.notes)
    beside = paper_table(1, [run_set], standards=STANDARDS)
    assert beside is not None
    assert [cell.mark for cell in beside.rows[0]][-3:] == ["", "", "≠"]
    assert {mark for cells in beside.rows[1:] for cell in cells for mark in cell.mark} == set()
    tidy = tidy_table([run_set], STANDARDS).to_frame()
    ap_rows = tidy[tidy["metric"] == "AP"].set_index(["method", "group"])["disagrees_with_paper"]
    assert ap_rows.to_dict() == {
        ("gbs", "all"): False, ("gbs", "maj"): False, ("gbs", "min"): False,
        ("soft-teacher", "all"): False, ("soft-teacher", "maj"): False, ("soft-teacher", "min"): True,
    }  # fmt: skip


def test_runs_of_other_tasks_have_no_such_mark() -> None:
    table = run_set_table(only(OWN))
    assert not any("≠" in note for note in table.notes)
    assert not any(cell.mark for cells in table.rows for cell in cells)
