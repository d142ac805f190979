"""What methods log about themselves: read, averaged by group, plotted."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cissod_bench import api
from cissod_bench.errors import UserError
from cissod_bench.leaderboard.figures.per_class import pseudo_labels
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.leaderboard.series import (
    class_series,
    observed_curves,
    pseudo_label_series,
    split_statistics,
    thinned,
)
from cissod_bench.results.diagnostics import (
    group_curve,
    pseudo_label_curves,
    pseudo_label_quality,
    read_observables,
)
from cissod_bench.results.record import write_result
from cissod_bench.synthetic.shapes import MAJORITY, MINORITY
from tests.leaderboard.runs import make_record

PUBLISHED = Path(__file__).parents[2] / "results"
LINES = [
    {"step": 10, "weights": [1.0, 2.0, None], "thresholds": [0.9, 0.9, 0.8]},
    {"step": 20, "weights": [1.0, 4.0, 3.0, 0.1], "thresholds": [0.9, 0.7, 0.6],
     "pseudo_labels": {"right": [9, 0, 0], "given": [9, 0, 0], "annotated": [9, 9, 9]}},
    {"step": 30, "weights": [1.0, 6.0, 5.0], "thresholds": [0.9, 0.5, 0.5],
     "pseudo_labels": {"right": [4, 1, 0], "given": [5, 2, 0], "annotated": [10, 4, 8]}},
]  # fmt: skip
CLASSES = [
    {"name": "b", "group": "maj", "train_boxes": 99, "labeled_boxes": 50},
    {"name": "a", "group": "min", "train_boxes": 99, "labeled_boxes": 2},
    {"name": "c", "group": "min", "train_boxes": 99, "labeled_boxes": 7},
]


@pytest.fixture
def runs(tmp_path):
    """gbs with two seeds that logged, and a method that logged nothing, on one split."""
    split = tmp_path / "split"
    split.mkdir()
    (split / "statistics.json").write_text(json.dumps({"classes": CLASSES, "groups": {"maj": {}, "min": {}}}))
    for method, seed in (("gbs", 0), ("gbs", 1), ("rfs", 0), ("rfs", 1)):
        folder = tmp_path / "runs" / f"{method}-{seed}"
        record = make_record(method=method, train_seed=seed)
        write_result(folder / "result.json", msgspec.structs.replace(record, split=str(split)))
        if method == "gbs":
            text = "".join(json.dumps(line) + "\n" for line in LINES)
            (folder / "observables.jsonl").write_text(text + '{"step": 40, "weig')
            covered = [{"step": step, "crs_coverage": step / 40} for step in (10, 20, 30)]
            (folder / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in covered))
    return tmp_path / "runs"


def test_what_was_logged_comes_back(runs):
    found = read_observables(runs / "gbs-0", 3)
    assert found.steps.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(found.values["weights"][0], [1, 2, np.nan])
    assert "gradient_ratio" not in found.values
    assert read_observables(runs / "rfs-0", 3) is None
    assert read_observables(runs / "gbs-0", 5) is None


def test_lines_come_in_the_order_of_steps_the_later_one_of_two(runs):
    """As a run that was continued without its log being cut leaves them; step 0 is no interval's end."""
    log = runs / "gbs-0" / "observables.jsonl"
    log.write_text(
        "".join(json.dumps(line) + "\n" for line in (LINES[2], LINES[0], {"step": 30, "weights": [7, 8, 9]}))
    )
    found = read_observables(runs / "gbs-0", 3)
    assert found.steps.tolist() == [10, 30]
    np.testing.assert_array_equal(found.values["weights"][1], [7, 8, 9])
    log.write_text(json.dumps({"step": 0, "weights": [1, 2, 3]}) + "\n")
    with pytest.raises(UserError, match="ends at step 0"):
        read_observables(runs / "gbs-0", 3)


def test_charts_take_nothing_from_another_split_in_the_place_of_the_runs_own(runs):
    shutil.rmtree(runs.parent / "split")
    api.make_splits("shapes", runs.parent / "split")
    files = RunFiles()
    assert class_series(make_report([runs]).run_sets[0], files) is None
    assert split_statistics(make_report([runs]).run_sets[0], files) is None
    (left_out,) = files.left_out
    assert "another split lies there now (b848846b078e, the runs were trained on dddddddddddd)" in left_out.reason


def test_the_mean_of_a_group_leaves_out_what_is_not_known(runs):
    found = read_observables(runs / "gbs-0", 3)
    assert group_curve(found, "weights", [1, 2]) == ([10, 20, 30], [2.0, 3.5, 5.5])
    assert group_curve(found, "weights", [2]) == ([20, 30], [3.0, 5.0])


def test_quality_of_pseudo_labels_at_the_end_of_the_run(runs):
    precision, recall = pseudo_label_quality(read_observables(runs / "gbs-0", 3))  # step 30 alone is in the last third
    np.testing.assert_array_equal(precision, [0.8, 0.5, np.nan])
    np.testing.assert_array_equal(recall, [0.4, 0.25, 0.0])


def test_curves_of_pseudo_labels_sum_over_twentieths_of_a_run():
    folder = PUBLISHED / "shapes-gbs-seed-0"
    lines = [json.loads(line) for line in (folder / "observables.jsonl").read_text().splitlines()]
    for labels in ([0, 1, 2, 3, 4, 5], [9]):
        expected: tuple[list, list] = ([], [])
        for begin in range(0, 6000, 300):
            sums = dict.fromkeys(("right", "given", "annotated"), 0)
            for line in lines:
                if begin < line["step"] <= begin + 300:
                    for name, counts in line["pseudo_labels"].items():
                        sums[name] += sum(counts[label] for label in labels)
            for points, whole in zip(expected, ("given", "annotated"), strict=True):
                if sums[whole]:
                    points.append((begin + 300, sums["right"] / sums[whole]))
        precision, recall = pseudo_label_curves(read_observables(folder, 12), labels)
        assert list(zip(*precision, strict=True)) == expected[0] != []
        assert list(zip(*recall, strict=True)) == expected[1]
        assert recall[0] == list(range(3300, 6001, 300))  # the teacher begins in the middle


def test_a_run_shorter_than_the_number_of_parts_and_one_that_logged_no_counts(runs):
    precision, recall = pseudo_label_curves(read_observables(runs / "gbs-0", 3), [1, 2])
    assert precision == ([30], [0.5])
    assert recall == ([20, 30], [0.0, 1 / 12])
    (runs / "rfs-0" / "observables.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    assert pseudo_label_curves(read_observables(runs / "rfs-0", 3), [0]) == (([], []), ([], []))


def test_classes_of_runs_whose_split_is_not_at_hand():
    report = make_report([PUBLISHED])
    run_set = next(each for each in report.run_sets if each.task == "shapes" and each.fields["iterations"] == 6000)
    precision, recall = pseudo_label_series(run_set, RunFiles())
    assert precision.names == recall.names == MAJORITY + MINORITY
    assert precision.groups == ("maj",) * 6 + ("min",) * 6
    curve = next(each for each in observed_curves(run_set, "pseudo_recall", RunFiles()) if each.label == "gbs").curve
    late = [value for step, value in zip(*curve, strict=True) if step > 4000]
    assert 0.4 < np.mean(late) < 0.7  # 0.52 in the last third (docs/results/full-length.md), of majority classes


def test_series_by_group_and_frequency(runs):
    run_set = make_report([runs]).run_sets[0]
    precision, recall = pseudo_label_series(run_set, RunFiles())
    assert precision.names == ("b", "c", "a")
    assert precision.values == {"gbs": (0.8, None, 0.5)}
    assert precision.groups == ("maj", "min", "min")
    assert recall.values == {"gbs": (0.4, 0.0, 0.25)}
    lines = observed_curves(run_set, "thresholds", RunFiles())
    assert [(line.label, line.group, line.row) for line in lines] == 2 * [("gbs", "maj", 0), ("gbs", "min", 0)]
    assert lines[1].curve[0] == [10, 20, 30]
    assert lines[1].curve[1] == pytest.approx([0.85, 0.65, 0.5])
    assert observed_curves(run_set, "gradient_ratio", RunFiles()) == []
    coverage = observed_curves(run_set, "crs_coverage", RunFiles())
    assert [(line.label, line.group, line.curve) for line in coverage] == 2 * [
        ("gbs", "D_u", ([10, 20, 30], [0.25, 0.5, 0.75]))
    ]


def test_curves_of_long_runs_are_thinned_out():
    steps = list(range(50, 180_001, 50))
    found = thinned((steps, [float(step) for step in steps]))
    assert found == (list(range(6_000, 180_001, 6_000)), [float(step) for step in range(6_000, 180_001, 6_000)])
    assert thinned(([7, 11, 900], [0.1, 0.2, 0.3])) == ([11, 900], [0.2, 0.3])
    assert thinned(([300, 600, 900], [0.1, 0.2, 0.3])) == ([300, 600, 900], [0.1, 0.2, 0.3])


def test_curves_count_steps_of_the_optimiser_not_batches(runs):
    """800 steps of eight batches: their log ends at batch 6,400, and stands in one row with a seed that took 800."""
    record = make_record(method="gbs", train_seed=1, accumulate=8)
    write_result(runs / "gbs-1" / "result.json", msgspec.structs.replace(record, split=str(runs.parent / "split")))
    covered = [{"step": step, "crs_coverage": step / 6400} for step in (3200, 6400)]
    (runs / "gbs-1" / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in covered))
    coverage = observed_curves(make_report([runs]).run_sets[0], "crs_coverage", RunFiles())
    assert [(line.label, line.curve[0]) for line in coverage] == [("gbs", [10, 20, 30]), ("gbs", [400, 800])]


def test_plots_and_page_show_them(runs, tmp_path):
    names = {path.name for path in write_report(make_report([runs]), tmp_path / "out")}
    stem = f"shapes-{'d' * 8}"
    for what in ("weights", "thresholds", "crs_coverage", "pseudo-labels", "pseudo_recall"):
        assert {f"{stem}-short-800-{what}.{kind}" for kind in ("png", "svg", "pdf")} <= names
    assert f"{stem}-short-800-gradient_ratio.png" not in names
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Thresholds over iterations" in page
    assert "Precision and recall of pseudo labels per class" in page
    assert "Gradient ratio over iterations" not in page


def test_the_figure_has_precision_above_recall(runs):
    figure = pseudo_labels(*pseudo_label_series(make_report([runs]).run_sets[0], RunFiles()))
    upper, lower = figure.axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("precision in percent", "recall in percent")
    heights = np.asarray(lower.collections[0].get_offsets())[:, 1]
    assert heights.tolist() == [40.0, 0.0, 25.0]
