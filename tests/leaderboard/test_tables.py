"""Tables and writers: the same content in every form, marks on the right cells, stable bytes."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from cissod_bench.api.results import paper_variants
from cissod_bench.leaderboard.comparable import comparable_run_sets
from cissod_bench.leaderboard.every_number import every_number, tidy_table
from cissod_bench.leaderboard.paper import TABLES
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.leaderboard.tables import paper_table, run_set_table
from cissod_bench.leaderboard.writers import WRITERS, comma_separated, html_table, json_rows, json_text, latex, markdown
from cissod_bench.results.environment import Git
from tests.leaderboard.runs import OFFICIAL_COCO, STANDARDS, make_record, paper_record

TABLE = Table(
    name="t",
    title="A & B",
    caption="100 % real.",
    columns=(Column("method", "Method"), Column("ap", "all", "AP", "metric"), Column("d", "all", "diff", "difference")),
    rows=(
        (Cell("x_1"), Cell(0.3004, 0.0025), Cell(0.01)),
        (Cell("y|z"), Cell(0.31, 0.0011), Cell(-0.005)),
        (Cell("w"), Cell(0.2999), Cell(None)),
        (Cell("apart"), Cell(0.99), Cell(None)),
    ),
    ranked=3,
    notes=("note <1>",),
)


def test_best_and_second_are_marked_as_printed():
    """0.2999 prints as 30.0, as 0.3004 does: both are second. The row that is apart does not compete."""
    assert [TABLE.place(row, 1) for row in range(4)] == [2, 1, 2, None]
    assert [TABLE.place(row, 2) for row in range(4)] == [None] * 4


def test_markdown_text():
    assert markdown(TABLE) == (
        "## A & B\n\n"
        "| Method | AP all | diff all |\n"
        "| :-- | --: | --: |\n"
        "| x_1 | *30.0 ± 0.2* | +1.0 |\n"
        "| y\\|z | **31.0 ± 0.1** | -0.5 |\n"
        "| w | *30.0* | – |\n"
        "| apart | 99.0 | – |\n"
        "\n100 % real.\n\n- note <1>\n"
    )


def test_latex_text():
    assert latex(TABLE) == (
        "\\begin{table}\n\\centering\n\\caption{A \\& B. 100 \\% real.}\n\\label{tab:t}\n"
        "\\begin{tabular}{lrr}\n\\toprule\n"
        " & \\multicolumn{1}{c}{AP} & \\multicolumn{1}{c}{diff} \\\\\n"
        "\\cmidrule(lr){2-2} \\cmidrule(lr){3-3}\n"
        "Method & all & all \\\\\n\\midrule\n"
        "x\\_1 & \\underline{30.0 $\\pm$ 0.2} & +1.0 \\\\\n"
        "y|z & \\textbf{31.0 $\\pm$ 0.1} & -0.5 \\\\\n"
        "w & \\underline{30.0} & -- \\\\\n"
        "apart & 99.0 & -- \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\\par\\footnotesize note <1>\n\\end{table}\n"
    )


def test_csv_keeps_every_digit():
    rows = list(csv.reader(io.StringIO(comma_separated(TABLE))))
    assert rows[0] == ["method", "ap", "ap_std", "d"]
    assert rows[1] == ["x_1", "0.3004", "0.0025", "0.01"]
    assert rows[3] == ["w", "0.2999", "", ""]


def test_json_keeps_every_digit():
    content = json.loads(json_text(TABLE))
    assert content["rows"][0] == {"method": "x_1", "ap": 0.3004, "ap_std": 0.0025, "d": 0.01}
    assert content["rows"][2] == {"method": "w", "ap": 0.2999, "d": None}


def test_html_is_well_formed_and_escaped():
    root = ElementTree.fromstring(f"<div>{html_table(TABLE)}</div>")
    cells = [["".join(cell.itertext()) for cell in row.iter("td")] for row in root.iter("tr")]
    assert cells[2] == ["x_1", "30.0 ± 0.2", "+1.0"]
    assert [strong.text for strong in root.iter("strong")] == ["31.0 ± 0.1"]
    assert root.find("ul/li").text == "note <1>"
    assert root.find(".//td[@data-order='0.3004']") is not None


@pytest.mark.parametrize("writer", WRITERS.values(), ids=list(WRITERS))
def test_every_writer_gives_the_same_bytes_twice_and_shows_every_row(writer):
    assert writer(TABLE) == writer(TABLE)
    for name in ("apart", "w"):
        assert name in writer(TABLE)


def sections_of(*records):
    return comparable_run_sets((Path(f"runs/{index}/result.json"), record) for index, record in enumerate(records))


def full(**key):
    return paper_record({"all": 0.2701, "maj": 0.3100, "min": 0.15}, **key)


def variant(method, options, **key):
    return full(method=method, method_options=options, resolved_options=options, **key)


def values(table, row, kind):
    return [cell.value for column, cell in zip(table.columns, table.rows[row], strict=True) if column.kind == kind]


def test_the_paper_and_the_difference_stand_beside_runs_in_its_setting():
    table = run_set_table(sections_of(full(method="gbs"))[0], standards=STANDARDS)
    assert values(table, 0, "metric") == pytest.approx([0.2701, 0.31, 0.15])
    assert values(table, 0, "reference") == [0.265, 0.307, 0.139]
    assert values(table, 0, "difference") == pytest.approx([0.0051, 0.003, 0.011])
    scaled = run_set_table(sections_of(full(method="gbs", batch=(16, 64), iterations=90_000))[0], standards=STANDARDS)
    assert values(scaled, 0, "reference") == [0.265, 0.307, 0.139]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shortened": True}, "a shortened schedule"),
        ({"schedule": "short", "iterations": 18_000}, "18,000 iterations of 40 images instead of 180,000"),
        ({"iterations": 360_000}, "360,000 iterations of 40 images instead of 180,000"),
        ({"batch": None}, "the batch size is not stated"),
        ({"detector": "r18-quarter"}, "detector r18-quarter instead of r50-fpn"),
        ({"backbone": None}, "no pretrained backbone"),
        ({"overrides": {"model.detector.backbone.depth": 101}}, "by --set: model.detector.backbone.depth"),
        ({"max_detections": 300}, "300 detections per image instead of 100"),
    ],
)
def test_the_papers_numbers_stand_in_no_other_setting(change, reason):
    run_sets = sections_of(full(method="gbs", **change))
    table = run_set_table(run_sets[0], standards=STANDARDS)
    assert values(table, 0, "reference") == values(table, 0, "difference") == []
    assert any(note.startswith("The paper's numbers do not stand here") and reason in note for note in table.notes)
    theirs = paper_table(1, run_sets, standards=STANDARDS)
    assert values(theirs, 0, "metric") == []
    assert any("is left out" in note and reason in note for note in theirs.notes)
    assert {row["paper"] for row in json.loads(json_text(tidy_table(run_sets, STANDARDS)))["rows"]} == {None}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OFFICIAL_COCO | {"train_images": 80}, "80 train images instead of 118,287"),
        (OFFICIAL_COCO | {"validation_images": 80}, "80 validation images instead of 5,000"),
        (OFFICIAL_COCO | {"validation_annotations": 36_780}, "36,780 validation annotations instead of 36,781"),
        (None, "the size of the data is not recorded"),
    ],
)
def test_the_papers_numbers_stand_beside_no_sample_of_the_data(data, reason):
    """A split from 80 images, scored on 80, had stood beside the paper's 26.5 with a difference of +73.5."""
    run_sets = sections_of(msgspec.structs.replace(full(method="gbs"), data=data))
    table = run_set_table(run_sets[0], standards=STANDARDS)
    assert values(table, 0, "reference") == []
    assert any(reason in note for note in table.notes)


def test_a_variant_with_other_options_is_not_the_papers_row():
    beta = full(method="gbs", method_options={"beta": 1}, resolved_options={"beta": 1})
    table = run_set_table(sections_of(beta, full())[0], standards=STANDARDS)
    assert [row[1].value for row in table.rows] == ["gbs (beta=1)", "soft-teacher"]
    assert values(table, 0, "reference") == [None, None, None]
    assert values(table, 1, "reference") == [0.236, 0.31, 0.015]
    assert values(run_set_table(sections_of(beta)[0], standards=STANDARDS), 0, "reference") == []


def test_shortened_rows_are_marked():
    table = run_set_table(sections_of(full(shortened=True))[0])
    assert table.rows[0][1].value == "soft-teacher†"
    assert "shortened" in table.title
    assert any("Shortened schedule" in note for note in table.notes)


def test_tables_of_a_task_say_why_they_are_apart():
    run_sets = sections_of(full(), full(schedule="short", iterations=100, shortened=True))
    notes = run_set_table(run_sets[1], run_sets).notes
    assert any("Not comparable" in note and "schedule: short here, paper there" in note for note in notes)


def test_the_paper_in_its_form_beside_runs_in_its_setting():
    toy = [make_record(method="rfs"), make_record(method="gbs")]
    table = paper_table(1, sections_of(*toy, full(method="gbs")), standards=STANDARDS)
    assert [cells[0].value for cells in table.rows] == [
        "Soft teacher", "RFS", "EqLv2", "C2AM Loss", "CReST", "DASO", "DeFRCN", "Ours",
    ]  # fmt: skip
    assert values(table, 7, "reference") == [0.265, 0.307, 0.139, 0.238, 0.324, 0.151]
    assert values(table, 7, "metric") == pytest.approx([0.2701, 0.31, 0.15])
    assert values(table, 1, "metric") == [None] * 3
    assert {column.over for column in table.columns if column.kind == "metric"} == {"measured: coco-split1"}
    assert paper_table(1, sections_of(*toy)) is None, "no task of the table was run"


@pytest.mark.parametrize(
    ("number", "task", "rows", "columns"),
    [(2, "coco-o365", 8, 3), (3, "lvis", 6, 4), (4, "coco-split1", 9, 3), (5, "coco-split1", 6, 3)],
)
def test_the_other_tables_of_the_paper(number, task, rows, columns):
    table = paper_table(number, sections_of(make_record(task=task)))
    assert (len(table.rows), len(values(table, 0, "reference"))) == (rows, columns)
    assert len(table.columns) == columns + 1


def test_every_number_is_in_the_tidy_table():
    run_sets = sections_of(full(method="gbs"), full(method="gbs", train_seed=1), full(), full(train_seed=1))
    rows = json.loads(json_text(tidy_table(run_sets, STANDARDS)))["rows"]
    assert len(rows) == 2 * 3 * 7
    row = next(row for row in rows if (row["method"], row["group"], row["metric"]) == ("gbs", "min", "AP"))
    assert (row["mean"], row["std"], row["paper"]) == (pytest.approx(0.15), 0.0, 0.139)
    assert row["runs"] == ["runs/0", "runs/1"]
    assert (row["seeds"], row["options"], row["shortened"], row["precision"]) == ([0, 1], {}, False, None)
    assert (row["iterations"], row["batch"], row["method_version"]) == (180_000, [8, 32], 2)


def test_the_json_of_a_report_holds_each_fact_of_a_row_once():
    run_sets = sections_of(full(method="gbs"), full(method="gbs", train_seed=1), full(), full(train_seed=1))
    rows = json.loads(json_rows(every_number(run_sets, STANDARDS)))["rows"]
    assert [(row["method"], row["seeds"], row["runs"]) for row in rows] == [
        ("gbs", [0, 1], ["runs/0", "runs/1"]), ("soft-teacher", [0, 1], ["runs/2", "runs/3"]),
    ]  # fmt: skip
    score = rows[0]["scores"]["min"]
    assert score["AP"] == {
        "mean": pytest.approx(0.15), "std": 0.0, "t_interval": 0.0, "paper": 0.139, "disagrees_with_paper": True,
    }  # fmt: skip
    assert score.keys() == {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR"}
    assert score["AP50"].keys() == {"mean", "std", "t_interval"}


def test_what_programs_read_has_the_types_of_json():
    """In CSV booleans are JSON's words, whole numbers stay whole beside missing ones, a list is its JSON."""
    columns = (Column("flag", ""), Column("count", ""), Column("list", ""), Column("ap", "", kind="metric"))
    rows = ((Cell(True), Cell(3), Cell([1, 2]), Cell(0.5)), (Cell(False), Cell(None), Cell([]), Cell(None)))
    table = Table("t", "t", "", columns, rows, ranked=0)
    assert comma_separated(table) == 'flag,count,list,ap\ntrue,3,"[1,2]",0.5\nfalse,,[],\n'
    assert json.loads(json_text(table))["rows"] == [
        {"flag": True, "count": 3, "list": [1, 2], "ap": 0.5}, {"flag": False, "count": None, "list": [], "ap": None},
    ]  # fmt: skip


def test_the_ablations_come_out_in_the_papers_form_beside_the_runs():
    variants = paper_variants()
    theirs = {(table.number, row.label) for table in TABLES if table.number >= 4 for row in table.rows}
    assert variants.keys() == theirs
    runs = [variant(method, options) for method, options in variants.values()]
    runs.append(variant("gbs", {"beta": 1.0}))
    for number, rows in ((4, 9), (5, 6)):
        table = paper_table(number, sections_of(*runs), variants, STANDARDS)
        assert len(table.rows) == rows
        for row in range(rows):
            assert values(table, row, "metric") == pytest.approx([0.2701, 0.31, 0.15])


def test_the_set_with_most_rows_stands_beside_and_toys_never():
    variants = paper_variants()
    chosen = [variants[4, label] for label in ("none", "GbR", "CrS + GbT + GbR")]
    most = [variant(method, options, precision="fp32") for method, options in chosen]
    toys = [make_record(method=method, method_options=options) for method, options in chosen]
    table = paper_table(4, sections_of(full(method="gbs", precision="bf16"), *most, *toys), variants, STANDARDS)
    assert [len(values(table, row, "metric")) for row in (0, 4, 8)] == [3, 3, 3]
    assert values(table, 4, "metric")[0] is not None
    assert any("precision bf16 is left out" in note for note in table.notes)
    assert paper_table(4, sections_of(*toys), variants) is None


def test_a_variant_that_lacks_a_seed_is_said_to_be_left_out():
    variants = paper_variants()
    (method, gbr), (_, fl) = variants[4, "GbR"], variants[4, "FL"]
    runs = [full(method=method, train_seed=seed) for seed in (0, 1)]
    runs += [variant(method, gbr, train_seed=seed) for seed in (0, 1)]
    runs.append(variant(method, fl, train_seed=0))
    table = paper_table(4, sections_of(*runs), variants, STANDARDS)
    (said,) = [note for note in table.notes if note.startswith("FL on coco-split1")]
    assert said.endswith("is left out: training seed 1 is missing, which other rows of this table have.")
    assert not any(note.startswith("GbR") for note in table.notes)


def test_ablations_differ_from_the_defaults_as_the_records_say():
    """What `paper_variants` takes for changed is what a run records as changed."""
    registry = pytest.importorskip("cissod_bench.methods.registry")
    from cissod_bench.methods.gbs.ablations import ABLATIONS

    for ablation in ABLATIONS.values():
        method = registry.get_method(ablation.method)
        default, chosen = (msgspec.structs.asdict(method.options(given)) for given in ({}, ablation.options))
        changed = {name: value for name, value in chosen.items() if value != default[name]}
        assert paper_variants()[ablation.table, ablation.title] == (ablation.method, changed)


def test_a_row_bears_the_marks_of_its_runs():
    old, dirty = make_record(method_version=None), msgspec.structs.replace(make_record(), git=Git("c" * 40, dirty=True))
    assert run_set_table(sections_of(old)[0]).rows[0][1].value == "soft-teacher§"
    assert run_set_table(sections_of(dirty)[0]).rows[0][1].value == "soft-teacher‡"
