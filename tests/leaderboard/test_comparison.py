"""Comparing two runs: estimates are the evaluator's, intervals are paired, what differs is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate
from cissod_bench.leaderboard.comparison import compare_runs, comparison_table
from cissod_bench.leaderboard.intervals import image_intervals
from cissod_bench.leaderboard.report import make_report
from cissod_bench.results.external import write_run
from cissod_bench.results.record import RESULT_FILE
from tests.leaderboard.runs import make_record

IMAGES = 60


def detections(truth, noise, seed):
    rng = np.random.default_rng(seed)
    return [
        {"image_id": box["image_id"], "category_id": box["category_id"], "score": float(rng.random()),
         "bbox": [box["bbox"][0] + float(rng.normal(0, noise)), *box["bbox"][1:]]}
        for box in truth["annotations"]
    ]  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    """A run folder whose detector is off by `noise` pixels on 60 images of 3 classes."""
    rng = np.random.default_rng(0)
    boxes = [
        {"id": index, "image_id": int(rng.integers(1, IMAGES + 1)), "category_id": int(rng.integers(1, 4)),
         "bbox": [*map(float, rng.uniform(0, 90, 2)), 40.0, 30.0]}
        for index in range(1, 4 * IMAGES)
    ]  # fmt: skip
    truth = {
        "images": [{"id": index} for index in range(1, IMAGES + 1)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(("a", "b", "c", "empty"), start=1)],
        "annotations": boxes,
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))

    def make(name: str, noise: float, seed: int = 0, **key) -> Path:
        predictions = tmp_path / f"{name}.json"
        predictions.write_text(json.dumps(detections(truth, noise, seed)))
        groups = {"maj": ["a", "b"], "min": ["c", "empty"]}
        evaluation = evaluate(tmp_path / "gt.json", predictions, groups)
        write_run(tmp_path / name, make_record(method=name, **key).key, evaluation, predictions, data={})
        return tmp_path / name

    return make


def test_estimates_are_the_evaluators_and_the_difference_is_theirs(make_run, tmp_path):
    one, two = make_run("one", 6.0), make_run("two", 2.0)
    found = compare_runs(one, two, samples=40)
    metrics = [json.loads((run / RESULT_FILE).read_text())["metrics"] for run in (one, two)]
    for group in ("all", "maj", "min"):
        intervals = found.groups[group]
        expected = [of_run[group]["AP"] for of_run in metrics]
        assert [interval.value for interval in intervals[:2]] == pytest.approx(expected, abs=1e-12)
        assert intervals[2].value == pytest.approx(expected[1] - expected[0], abs=1e-12)
        assert intervals[2].excludes_zero
    assert found.classes["empty"] is None
    assert set(found.classes) == {"a", "b", "c", "empty"}


def test_a_run_does_not_differ_from_itself(make_run):
    run = make_run("one", 4.0)
    difference = compare_runs(run, run, samples=20).groups["all"][2]
    assert (difference.value, difference.std) == (0.0, 0.0)
    assert not difference.excludes_zero


def test_pairing_narrows_the_interval(make_run):
    """Two runs with nearly the same errors: the difference is known better than either value."""
    one, two = make_run("one", 4.0), make_run("two", 4.2)
    first, second, difference = compare_runs(one, two, samples=100).groups["all"]
    assert difference.std < 0.7 * np.hypot(first.std, second.std)


def test_table_and_command(make_run):
    one, two = make_run("one", 6.0), make_run("two", 2.0)
    table = comparison_table(compare_runs(one, two, samples=30), classes=True)
    values = [cells[3].value for cells in table.rows]
    assert values == sorted(values, reverse=True)
    assert any("1 without ground truth" in note for note in table.notes)
    arguments = ["compare", str(one), str(two), "--samples", "30"]
    shown = CliRunner().invoke(app, [*arguments, "--classes"])
    assert shown.exit_code == 0, shown.output
    assert "Group" in shown.output
    assert "Class" in shown.output
    content = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [row["name"] for row in content["groups"]["rows"]] == ["all", "maj", "min"]
    assert all(row["significant"] is True for row in content["groups"]["rows"])


@pytest.mark.parametrize("change", [{"schedule": "paper"}, {"split_digest": "e" * 64}, {"protocol": 2}])
def test_runs_that_are_not_comparable_are_refused(make_run, change):
    one, two = make_run("one", 6.0), make_run("two", 2.0, **change)
    with pytest.raises(UserError, match=f"not comparable: {next(iter(change))}"):
        compare_runs(one, two)


def test_missing_and_other_ground_truth(make_run, tmp_path):
    one, two = make_run("one", 6.0), make_run("two", 2.0)
    truth = json.loads((tmp_path / "gt.json").read_text())
    truth["annotations"][0]["bbox"][0] += 1
    (tmp_path / "other.json").write_text(json.dumps(truth))
    with pytest.raises(UserError, match=r"other\.json is not the ground truth"):
        compare_runs(one, two, annotations=tmp_path / "other.json")
    (tmp_path / "gt.json").unlink()
    with pytest.raises(UserError, match="ground truth of the run does not exist"):
        compare_runs(one, two)
    with pytest.raises(UserError, match=r"nowhere.*result\.json"):
        compare_runs(one, tmp_path / "nowhere")


def test_rows_of_a_report_are_resampled_like_a_comparison(make_run):
    """One seed a row: the interval of a row's difference is that of `compare` on the same samples."""
    one, two = make_run("soft-teacher", 5.0), make_run("rfs", 4.8)
    report = make_report([one, two], samples=40)
    pair = compare_runs(one, two, samples=40).groups
    rows = {row.label: row for row in image_intervals(report.run_sets[0], samples=40)}
    assert rows["rfs"].differences == {group: found[2] for group, found in pair.items()}
    assert rows["rfs"].values == {group: found[1] for group, found in pair.items()}
    assert rows["soft-teacher"].differences == {}
    assert len(report.images) == 1


def test_differences_beyond_chance_are_marked(make_run):
    runs = [make_run("soft-teacher", 6.0), make_run("rfs", 2.0)]
    table = make_report(runs, samples=30).tables[0]
    marks = {cells[1].value: [cell.mark for cell in cells[3:]] for cells in table.rows}
    assert marks == {"rfs": ["*", "*", "*"], "soft-teacher": ["", "", ""]}
    assert any(note.startswith("* differs from soft-teacher") for note in table.notes)
    assert "*" not in "".join(cell.mark for cells in make_report(runs).tables[0].rows for cell in cells)
    shown = CliRunner().invoke(app, ["report", str(runs[1]), "--bootstrap", "30"])
    assert "spread over validation images" in " ".join(shown.output.split())
    assert "Δ" not in shown.output, "there is no run of the baseline"


def test_programs_get_the_intervals_too(make_run):
    """Half widths, as of the interval over seeds, against those of the table's rows."""
    runs = [make_run("soft-teacher", 6.0), make_run("rfs", 2.0)]
    report = make_report(runs, samples=30)
    expected = {row.label: row for row in image_intervals(report.run_sets[0], samples=30)}
    for row in json.loads(report.numbers_as_json())["rows"]:
        for group in ("all", "maj", "min"):
            found = row["scores"][group]["AP"]
            value = expected[row["row"]].values[group]
            assert found["image_interval"] == pytest.approx(1.959964 * value.std)
            if row["method"] == "rfs":
                difference = expected["rfs"].differences[group]
                assert found["difference"] == difference.value
                assert found["difference_interval"] == pytest.approx(1.959964 * difference.std)
                assert found["significant"] is True
            else:
                assert found["difference"] is found["difference_interval"] is found["significant"] is None
    frame = report.results.to_frame()
    assert frame[(frame["metric"] == "AP") & (frame["method"] == "rfs")]["significant"].tolist() == [True] * 3
    assert "image_interval" not in json.loads(make_report(runs).numbers_as_json())["rows"][0]["scores"]["all"]["AP"]


def test_few_samples_and_a_baseline_that_is_not_there_are_refused(make_run):
    run = make_run("soft-teacher", 6.0)
    for samples in (-1, 1, 9):
        with pytest.raises(UserError, match=f"^{samples} bootstrap samples say nothing of a spread: take 10 or more"):
            make_report([run], samples=samples)
        with pytest.raises(UserError, match="take 10 or more"):
            compare_runs(run, run, samples=samples)
    with pytest.raises(UserError, match="Unknown method among these runs 'bogus'"):
        make_report([run], baseline="bogus")
    refused = CliRunner().invoke(app, ["report", str(run), "--json", "--ablation"])
    assert "Leave out --ablation" in str(refused.exception)


def test_the_baseline_alone_lacks_no_row_to_compare_with(make_run):
    (table,) = make_report([make_run("soft-teacher", 6.0)], samples=10).tables
    assert not [note for note in table.notes if "No row of" in note]
    (table,) = make_report([make_run("rfs", 6.0)], samples=10).tables
    assert "No row of soft-teacher, with its default options, to compare with over images." in table.notes


def test_seeds_of_a_row_are_averaged_before_they_are_resampled(make_run):
    runs = [make_run(name, noise, seed) for name, noise, seed in (("a0", 5, 0), ("a1", 5, 1))]
    single = [compare_runs(run, run, samples=25).groups["all"][0] for run in runs]
    for seed, run in enumerate(runs):
        content = json.loads((run / RESULT_FILE).read_text())
        content["key"] |= {"method": "a", "train_seed": seed}
        (run / RESULT_FILE).write_text(json.dumps(content))
    row = image_intervals(make_report(runs).run_sets[0], samples=25)[0]
    assert row.values["all"].value == pytest.approx((single[0].value + single[1].value) / 2)
    assert row.values["all"].std < max(found.std for found in single)


def test_intervals_need_detections(make_run):
    run = make_run("one", 6.0)
    (run / "detections.json").unlink()
    with pytest.raises(UserError, match=r"detections\.json: cannot be read"):
        make_report([run], samples=20)


def test_errors_command(make_run, tmp_path):
    run = make_run("one", 6.0)
    arguments = ["errors", str(run), "--out", str(tmp_path / "plots")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "AP50 gained" in shown.output
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == [f"one-{what}.{kind}" for what in ("confusion", "errors") for kind in ("pdf", "png", "svg")]
    content = json.loads(CliRunner().invoke(app, ["errors", str(run), "--json"]).stdout)
    assert set(content["errors"]) == {"all", "maj", "min"}
    for name, total in content["errors"]["all"].items():
        assert total == content["errors"]["maj"][name] + content["errors"]["min"][name]
    again = CliRunner().invoke(app, [*arguments, "--min-score", "0.9"])
    assert "exists with other content" in str(again.exception)


def test_the_ground_truth_is_found_from_any_folder(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = make_run("a", 1.0), make_run("b", 2.0)
    for folder in (first, second):
        record = json.loads((folder / RESULT_FILE).read_text())
        record["annotations"] = str(Path(record["annotations"]).relative_to(tmp_path))
        (folder / RESULT_FILE).write_text(json.dumps(record))
    here = compare_runs(first, second, samples=20)
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert comparison_table(compare_runs(first, second, samples=20)) == comparison_table(here)
