"""Reports from folders: what is written, what is left out, and that nothing is overwritten unasked."""

import json
import re
import shutil
import time

import pytest
from typer.testing import CliRunner

from cissod_bench.errors import UserError
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.results.record import write_result
from tests.leaderboard.runs import make_record


@pytest.fixture
def runs(run_folder):
    for method in ("soft-teacher", "rfs"):
        for seed in (0, 1):
            folder = run_folder(f"{method}-{seed}", method=method, train_seed=seed)
    return folder.parent


def test_files_and_their_stable_bytes(runs, tmp_path):
    files = [write_report(make_report([runs]), tmp_path / name) for name in ("a", "b")]
    tables = ["report.md", "tables.tex", "results.csv", "results.json", "index.html"]
    figures = [f"shapes-{'d' * 8}-short-800-groups.{kind}" for kind in ("png", "svg", "pdf")]
    assert [path.name for path in files[0]] == [*tables, *figures]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    text = files[0][0].read_text()
    assert "| 1 | rfs | 2 | 20.0 ± 0.0 | 25.0 ± 0.0 | 10.0 ± 0.0 |" in text
    assert "## Runs" in text
    assert "of the paper" not in text, "no task of the paper was run"


@pytest.fixture
def with_split(runs, tmp_path):
    """A run whose split folder has statistics; gives the file."""
    statistics = tmp_path / "split" / "statistics.json"
    statistics.parent.mkdir()
    rows = [("cat", "maj", 90, 20), ("dog", "maj", 1000, 100), ("cow", "min", 500, 0)]
    keys = ("name", "group", "train_boxes", "labeled_boxes")
    content = {"classes": [dict(zip(keys, row, strict=True)) for row in rows], "groups": {"maj": {}, "min": {}}}
    statistics.write_text(json.dumps(content))
    record = make_record(task="other")
    record = type(record)(key=record.key, metrics=record.metrics, groups=record.groups, split=str(statistics.parent))
    write_result(runs / "x" / "result.json", record)
    return statistics


def test_the_distribution_of_the_split_is_plotted(runs, with_split, tmp_path):
    stem = f"other-{'d' * 8}-distribution"
    pictures = []
    for name in ("a", "b"):
        write_report(make_report([runs]), tmp_path / name)
        assert f"({stem}.png)" in (tmp_path / name / "report.md").read_text()
        pictures.append([(tmp_path / name / f"{stem}.{kind}").read_bytes() for kind in ("png", "svg", "pdf")])
    assert pictures[0] == pictures[1]
    assert pictures[0][0].startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["[]", "{", '{"classes": [{"name": "a"}]}'])
def test_damaged_statistics_are_left_out_and_named(runs, with_split, tmp_path, text):
    with_split.write_text(text)
    files = write_report(make_report([runs]), tmp_path / "out")
    assert not [path for path in files if "distribution" in path.name]
    assert re.search(r"## Left out\n\n- .*split/statistics\.json", (tmp_path / "out" / "report.md").read_text())


def test_nothing_is_overwritten_unasked(runs, run_folder, tmp_path):
    out = tmp_path / "out"
    write_report(make_report([runs]), out)
    write_report(make_report([runs]), out)  # the same content is no change
    run_folder("rfs-2", method="gbs")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"report\.md.*--overwrite"):
        write_report(make_report([runs]), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    write_report(make_report([runs]), out, overwrite=True)
    assert "gbs" in (out / "report.md").read_text()


def test_figures_of_an_earlier_report_go_with_it(runs, run_folder, tmp_path):
    other = run_folder("rfs-2", method="rfs", iterations=900)
    write_report(make_report([runs]), tmp_path / "out")
    (tmp_path / "out" / "mine.png").write_bytes(b"mine")
    with (tmp_path / "out" / "report.md").open("a") as page:
        page.write("![my detector](mine.png)\n")
    shutil.rmtree(other)
    written = write_report(make_report([runs]), tmp_path / "out", overwrite=True)
    assert {*(tmp_path / "out").iterdir()} == {*written, tmp_path / "out" / "mine.png"}


def test_damaged_records_are_named_in_the_report(runs, tmp_path):
    (runs / "rfs-1" / "result.json").write_text("{")
    report = make_report([runs])
    assert len(report.rejected) == 1
    write_report(report, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Left out" in text
    assert "training seed 1 is missing" in text


def test_an_unknown_metric_is_refused(runs):
    with pytest.raises(UserError, match="Unknown metric 'AP5O'"):
        make_report([runs], metric="AP5O")


def test_command_line(runs, tmp_path):
    from cissod_bench.cli.main import app

    runner = CliRunner()
    shown = runner.invoke(app, ["report", str(runs), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0
    assert "soft-teacher" in shown.output
    assert (tmp_path / "out" / "report.md").exists()
    count, start = re.search(
        r"(\d+) files in \S+; start with (\S+)\.$", "".join(shown.output.split("\n")).strip()
    ).groups()
    assert int(count) == len(list((tmp_path / "out").iterdir()))
    assert start == str(tmp_path / "out" / "index.html")
    printed = runner.invoke(app, ["report", str(runs), "--json"])
    rows = json.loads(printed.stdout)["rows"]
    assert [(len(row["scores"]), len(row["scores"]["all"])) for row in rows] == [(3, 7)] * 2
    missing = runner.invoke(app, ["report", str(tmp_path / "nowhere")])
    assert isinstance(missing.exception, UserError)


@pytest.mark.slow
def test_a_thousand_records_take_seconds_of_computing(run_folder, tmp_path):
    for index in range(1000):
        folder = run_folder(
            str(index), method=f"m{index % 10}", train_seed=index // 200, split_digest=f"{index % 200:x}"
        )
    started = time.process_time()
    write_report(make_report([folder.parent]), tmp_path / "out")
    assert time.process_time() - started < 10


def test_two_tables_never_share_a_name(run_folder, tmp_path):
    """Runs that differ in one setting had one title, one LaTeX label, and plots that overwrote each other."""
    settings = [{}, {"optim_wrapper.optimizer.lr": 0.02}, {"optim_wrapper.optimizer.lr": 0.005}]
    for index, overrides in enumerate(settings):
        folder = run_folder(str(index), overrides=overrides)
        lines = [{"step": step, **{f"{group}/AP": 0.01 * step for group in ("all", "maj", "min")}} for step in (10, 20)]
        (folder / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = write_report(make_report([folder.parent]), tmp_path / "out")
    assert len(set(files)) == len(files)
    assert len([path for path in files if path.name.endswith("-iterations.png")]) == 3
    labels = re.findall(r"\\label\{(.*?)\}", (tmp_path / "out" / "tables.tex").read_text())
    assert len(labels) == len(set(labels)) == 3
    text = (tmp_path / "out" / "report.md").read_text()
    titles = re.findall(r"^## (shapes .*)$", text, flags=re.MULTILINE)
    assert len(set(titles)) == 3
    assert "overrides.optim_wrapper.optimizer.lr 0.02" in text
    assert "overrides.optim_wrapper.optimizer.lr: 0.02 here, 0.005 there" in text
    assert "overrides.optim_wrapper.optimizer.lr: default here, 0.005 there" in text
    assert any("optim-wrapper.optimizer.lr=0.02" in label for label in labels)
    assert any("optim-wrapper.optimizer.lr=0.02" in path.name for path in files)


def test_the_ablations_are_the_papers_tasks(runs):
    from cissod_bench.cli.main import app

    refused = CliRunner().invoke(app, ["report", str(runs), "--ablation"])
    assert isinstance(refused.exception, UserError)
    assert "No run of coco-split1" in str(refused.exception)


def test_a_report_of_many_tables_and_rows_draws_the_first_of_them(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cissod_bench.leaderboard.report.MOST_SETS", 2)
    monkeypatch.setattr("cissod_bench.leaderboard.series.MOST_ROWS", 3)
    monkeypatch.setattr("cissod_bench.leaderboard.report.MOST_ROWS", 3)
    for index in range(12):
        folder = run_folder(
            str(index), {"all": 0.5 - index / 100}, method=f"m{index}", split_digest=f"{index % 3}" * 64
        )
        lines = [{"step": step, "all/AP": 0.01 * step} for step in (10, 20)]
        (folder / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = make_report([folder.parent])
    assert [sorted({curve.label for curve in charts.iterations}) for charts in report.charts] == [
        ["m0", "m3", "m6"], ["m1", "m4", "m7"],
    ]  # fmt: skip
    files = write_report(report, tmp_path / "out")
    assert len([path for path in files if path.suffix == ".png"]) == 4  # by group, and over iterations
    said = "Charts and plots are of the first 2 of 3 tables and of the first 3 rows of a table."
    assert said in (tmp_path / "out" / "report.md").read_text()
    assert said in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "index.html").read_text().count("<h2>shapes") == 3
