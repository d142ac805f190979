"""What a run folder holds is data of anybody: checked when it is read, and one bad file costs one row."""

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate, load_evaluation
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.results import record as records
from cissod_bench.results.curves import read_curves
from cissod_bench.results.diagnostics import read_observables
from cissod_bench.results.external import write_run
from tests.leaderboard.runs import make_record
from tests.privileges import without_privileges

TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 9, 9]},
    ],
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two run folders with detections and arrays, `good` and `bad`."""
    (tmp_path / "gt.json").write_text(json.dumps(TRUTH))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]
    (tmp_path / "dt.json").write_text(json.dumps(found))
    evaluation = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", {"maj": ["a"], "min": ["b"]})
    for method, name in (("rfs", "good"), ("gbs", "bad")):
        write_run(tmp_path / "runs" / name, make_record(method=method).key, evaluation, tmp_path / "dt.json", split="")
    return tmp_path / "runs"


def left_out(runs: Path, out: Path) -> tuple[list[str], str]:
    """Methods of the rows of a report, and what it says about the files that it left out."""
    report = make_report([runs])
    write_report(report, out)
    text = (out / "report.md").read_text()
    page = (out / "index.html").read_text()
    for entry in report.left_out:
        assert str(entry.path.parent) in text
        assert str(entry.path.parent) in page
    return [row.method for run_set in report.run_sets for row in run_set.rows], "\n".join(
        entry.reason for entry in report.left_out
    )


def test_whole_runs_are_all_there(runs: Path, tmp_path: Path) -> None:
    assert left_out(runs, tmp_path / "out") == (["gbs", "rfs"], "")


def changed_arrays(path: Path, change: Any) -> None:
    with np.load(path) as arrays:
        content = dict(arrays)
    change(content)
    np.savez(path, **content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(precision=a["precision"].astype(np.float32)), "`precision` is float32"),
        (lambda a: a.update(precision=a["precision"][:9]), "`precision` is float64 \\(9,"),
        (lambda a: a.update(recall=a["recall"][0]), "`recall` is"),
        (lambda a: a["precision"].__setitem__((0, 0, 0, 0), 1.5), "neither in"),
        (lambda a: a["precision"].__setitem__((0, 0, 0, 0), np.nan), "neither in"),
        (lambda a: a["recall"].__setitem__((0, 0, 0), -0.5), "neither in"),
        (lambda a: a["recall"].__setitem__((3, 0, 0), -1), "lacks some values"),
        (lambda a: a["num_ground_truth"].__setitem__(0, -1), "negative"),
        (lambda a: a.update(class_names=np.array(["a", "a"])), "a class comes twice"),
        (lambda a: a.update(class_names=np.array(["a", "c"])), "without arrays"),
        (lambda a: a.update(class_names=np.array(["a", object()], dtype=object)), "pickle"),
        (lambda a: a.pop("recall"), "recall"),
        (lambda a: a.update(about=np.array("{")), "`about` cannot be read"),
        (lambda a: a.update(about=np.array('{"groups": {}}')), "`about` cannot be read"),
        (lambda a: a["precision"].__setitem__((..., 0, 0), 0.25), "and the record"),
    ],
)
def test_arrays_that_are_not_those_of_the_record_cost_its_row(
    runs: Path, tmp_path: Path, change: Any, message: str
) -> None:
    changed_arrays(runs / "bad" / "per_class.npz", change)
    methods, reasons = left_out(runs, tmp_path / "out")
    assert methods == ["rfs"]
    with pytest.raises(UserError, match=message):
        raise UserError(reasons)


def test_arrays_that_would_fill_the_memory_are_not_unpacked(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = runs / "bad" / "per_class.npz"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(10**7))
    assert path.stat().st_size < 10**6
    monkeypatch.setattr("cissod_bench.evaluation.groups.LARGEST_ARRAYS", 10**6)
    with pytest.raises(UserError, match=r"bytes of arrays, more than 1,000,000"):
        load_evaluation(path)


def test_a_record_with_other_numbers_than_its_arrays_is_left_out(runs: Path, tmp_path: Path) -> None:
    path = runs / "bad" / "result.json"
    record = records.load_result(path)
    of = record.metrics
    higher = {group: {**of[group], "AP": 0.9} for group in of}
    records.write_result(path, msgspec.structs.replace(record, metrics=higher))
    methods, reasons = left_out(runs, tmp_path / "out")
    assert methods == ["rfs"]
    assert re.search("gives 0.* as AP of group '.*', and the record 0.9", reasons)
    records.write_result(path, msgspec.structs.replace(record, annotations_digest="0" * 64))
    assert "another ground truth" in left_out(runs, tmp_path / "out2")[1]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b'{"key": "\xff"}',
        b"[" * 100_000,
        b'{"schema_version": 3, "key": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
        b'{"schema_version": ' + b"9" * 5_000 + b', "key": {}}',
        b'{"schema_version": [3], "key": {}}',
        b'{"schema_version": 3, "key": []}',
        b"\0" * 10,
    ],
)
def test_a_record_that_cannot_be_decoded_costs_one_row(runs: Path, tmp_path: Path, text: bytes) -> None:
    (runs / "bad" / "result.json").write_bytes(text)
    methods, reasons = left_out(runs, tmp_path / "out")
    assert methods == ["rfs"]
    assert "bad/result.json" in reasons


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method_options", {"a": [[[[[[[[[1]]]]]]]]]}, "too deep"),
        ("resolved_options", {"a": 10**30}, "beyond 64 bits"),
        ("overrides", {"a\0b": 1}, "character"),
        ("task", "a\0b", "character"),
        ("method", "\ud800", "."),
    ],
)
def test_values_that_no_run_writes_are_refused(runs: Path, field: str, value: Any, message: str) -> None:
    path = runs / "bad" / "result.json"
    content = json.loads(path.read_text())
    content["key"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        records.load_result(path)


@pytest.mark.parametrize("name", ["result.json", "per_class.npz", "scalars.jsonl", "observables.jsonl"])
def test_pipes_in_a_run_folder_are_not_opened(runs: Path, tmp_path: Path, name: str) -> None:
    split = tmp_path / "split"
    split.mkdir()
    os.mkfifo(split / "statistics.json")
    for run in ("good", "bad"):
        path = runs / run / "result.json"
        records.write_result(path, msgspec.structs.replace(records.load_result(path), split=str(split)))
    (runs / "bad" / name).unlink(missing_ok=True)
    os.mkfifo(runs / "bad" / name)
    methods, reasons = left_out(runs, tmp_path / "out")
    lost = name in ("result.json", "per_class.npz")
    assert methods == (["rfs"] if lost else ["gbs", "rfs"])
    if name != "observables.jsonl":  # without statistics nothing says which class its columns are of
        assert name in reasons
    assert "statistics.json cannot be read: Not a regular file" in reasons


GOOD_LINE = b'{"step": 1, "all/AP": 0.5}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff",
        b"[1]",
        b"[" * 100_000,
        b'{"step": -1}',
        b'{"step": 1.5}',
        b'{"step": true}',
        b'{"step": 1' + b"0" * 400 + b"}",
        b'{"step": 1, "a": 1' + b"0" * 400 + b"}",
        b'{"step": "1"}',
    ],
)
def test_a_damaged_line_costs_the_curves_of_its_run(runs: Path, tmp_path: Path, line: bytes) -> None:
    second = b'{"step": 2, "all/AP": NaN, "loss": Infinity}\n{"step": 3, "all/AP": 0.75}\n'
    for run in ("good", "bad"):
        (runs / run / "scalars.jsonl").write_bytes(GOOD_LINE + second)
    assert read_curves(runs / "bad") == {"all/AP": ([1, 3], [0.5, 0.75])}
    (runs / "bad" / "scalars.jsonl").write_bytes(GOOD_LINE + second + line)  # a run that was killed
    assert read_curves(runs / "bad") == {"all/AP": ([1, 3], [0.5, 0.75])}
    (runs / "bad" / "scalars.jsonl").write_bytes(GOOD_LINE + line + b"\n" + second)
    with pytest.raises(UserError, match=r"scalars\.jsonl: line 2 is damaged"):
        read_curves(runs / "bad")
    methods, reasons = left_out(runs, tmp_path / "out")
    assert methods == ["gbs", "rfs"]
    assert "line 2 is damaged" in reasons


def test_values_that_nothing_could_draw_are_no_part_of_a_curve(runs: Path, tmp_path: Path) -> None:
    lines = [b'{"step": %d, "all/AP": %s}\n' % (step, value) for step, value in enumerate([b"1e307", b"-1e307", b"0.5"])]
    (runs / "bad" / "scalars.jsonl").write_bytes(b"".join(lines))
    assert read_curves(runs / "bad") == {"all/AP": ([2], [0.5])}
    assert left_out(runs, tmp_path / "out")[0] == ["gbs", "rfs"]


@pytest.mark.parametrize(
    "line",
    [
        {"step": 1, "weights": [1.0, "2"]},
        {"step": 1, "weights": 3},
        {"step": 1, "weights": [True, 1.0]},
        {"step": 1, "weights": [1e300, 1.0]},
        {"step": 1, "pseudo_labels": [1]},
        {"step": 1, "pseudo_labels": {"right": [-1, 0], "given": [1, 1], "annotated": [1, 1]}},
        {"step": 1, "pseudo_labels": {"wrong": [1, 0]}},
        {"step": 1, "pseudo_labels": {"right": [None, 0]}},
    ],
)
def test_diagnostics_that_are_not_numbers_are_refused(tmp_path: Path, line: dict[str, Any]) -> None:
    (tmp_path / "observables.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"observables\.jsonl"):
        read_observables(tmp_path, 2)


def test_folders_that_may_not_be_searched_are_named(runs: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    (runs / "bad").chmod(0)
    command = [sys.executable, "-m", "cissod_bench.cli.main", "report", str(runs)]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, preexec_fn=without_privileges)
    finally:
        (runs / "bad").chmod(0o755)
    assert shown.returncode == 0, shown.stderr
    assert f"{runs / 'bad'}: cannot be searched (Permission denied)." in shown.stderr
