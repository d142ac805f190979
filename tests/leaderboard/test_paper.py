"""The transcription of the paper's tables, against sums computed by hand and the differences its text states."""

import re
from pathlib import Path

import pytest

from cissod_bench.leaderboard.paper import INCONSISTENT, TABLES, comparison_table
from cissod_bench.tasks.records import COCO_SPLIT2_MINORITY, VOC_CLASSES

PAPER = Path(__file__).parents[3] / "shared" / "spec" / "paper.txt"
CLASSES = {"coco-split1": (60, 20), "coco-split2": (40, 40), "coco-o365": (78, 287)}
SUMS = [  # of every column of every table, added by hand from the paper's page: (table, task) -> group -> sum
    ((1, "coco-split1"), {"all": 192.6, "maj": 241.6, "min": 49.1}),
    ((1, "coco-split2"), {"all": 159.7, "maj": 256.4, "min": 62.8}),
    ((2, "coco-o365"), {"all": 58.7, "maj": 178.2, "min": 26.3}),
    ((3, "lvis"), {"all": 49.9, "f": 132.8, "c": 74.1, "r": 18.9}),
    ((4, "coco-split1"), {"all": 225.7, "maj": 277.4, "min": 71.3}),
    ((5, "coco-split1"), {"all": 156.1, "maj": 183.5, "min": 75.7}),
]


@pytest.mark.parametrize(("key", "sums"), SUMS, ids=lambda value: str(value)[:20])
def test_column_sums(key, sums):
    table = next(table for table in TABLES if (table.number, table.task) == key)
    assert {group: round(sum(row.ap[group] for row in table.rows), 1) for group in table.groups} == sums


@pytest.mark.parametrize(
    ("number", "task", "row"),
    [(table.number, table.task, row) for table in TABLES if table.task in CLASSES for row in table.rows],
    ids=lambda value: getattr(value, "label", str(value)),
)
def test_all_is_the_mean_over_classes_but_for_the_known_rows(number, task, row):
    majority, minority = CLASSES[task]
    mean = (majority * row.ap["maj"] + minority * row.ap["min"]) / (majority + minority)
    # Half a digit each of `all`, `maj` and `min`, the latter two weighted: 0.05 + 0.05.
    fits = abs(row.ap["all"] - mean) <= 0.1 + 1e-9
    assert fits == ((number, task, row.label) not in INCONSISTENT)


def test_class_counts_are_those_of_the_tasks():
    assert (len(VOC_CLASSES), len(COCO_SPLIT2_MINORITY)) == (CLASSES["coco-split1"][1], CLASSES["coco-split2"][1])


def value(number, task, label, group):
    table = next(table for table in TABLES if (table.number, table.task) == (number, task))
    return next(row for row in table.rows if row.label == label).ap[group]


@pytest.mark.parametrize(
    ("number", "task", "label", "other", "group", "difference"),
    [  # sec. 4.3
        (1, "coco-split1", "Ours", "DeFRCN", "min", 4.7),
        (1, "coco-split2", "Ours", "Soft teacher", "all", 6.6),
        (1, "coco-split2", "Ours", "DeFRCN", "min", 3.8),
        (1, "coco-split2", "Ours", "DeFRCN", "all", 2.9),
        (2, "coco-o365", "Ours", "DeFRCN", "all", 1.3),
        (2, "coco-o365", "Ours", "DeFRCN", "min", 0.9),
        (3, "lvis", "Ours", "DASO", "all", 0.2),
        (3, "lvis", "Ours", "C2AM", "r", 0.5),
        # sec. 4.4
        (4, "coco-split1", "GbT", "none", "min", 4.2),
        (4, "coco-split1", "GbR", "none", "min", 6.4),
        (4, "coco-split1", "FL", "none", "min", 2.0),
        (4, "coco-split1", "FL", "none", "all", 0.2),
        (4, "coco-split1", "CrS + GbT + GbR", "GbT + GbR", "min", 3.4),
        (4, "coco-split1", "CrS + GbT + GbR", "CrS + GbR", "min", 2.5),
        (4, "coco-split1", "CrS + GbT + GbR", "CrS + GbT", "min", 3.6),
        (4, "coco-split1", "CrS + GbT + GbR", "GbT + GbR", "all", 0.7),
        (5, "coco-split1", "GbT", "0.5", "all", 0.9),
        (5, "coco-split1", "GbT", "0.9", "all", 0.7),
    ],
)  # fmt: skip
def test_differences_that_the_text_states(number, task, label, other, group, difference):
    found = value(number, task, label, group) - value(number, task, other, group)
    assert found == pytest.approx(difference, abs=1e-9)


def test_rows_that_are_the_same_run_agree_between_tables():
    for label, twin in (("none", "Soft teacher"), ("CrS + GbT + GbR", "Ours")):
        for group in ("all", "maj", "min"):
            assert value(4, "coco-split1", label, group) == value(1, "coco-split1", twin, group)
    assert value(5, "coco-split1", "GbT", "min") == value(1, "coco-split1", "Ours", "min")


def test_against_the_text_of_the_paper():
    """Every line of Tables 1-3 and 5, character by character, from the paper's own text."""
    if not PAPER.exists():
        pytest.skip("the paper's text is absent")
    lines = [re.sub(r"\s*\[\d+\]", "", line).split("\t") for line in PAPER.read_text().splitlines() if "\t" in line]
    first, second = comparison_table("coco-split1"), comparison_table("coco-split2")
    for one, two in zip(first.rows, second.rows, strict=True):
        assert [one.label, *(f"{v:.1f}" for v in (*one.ap.values(), *two.ap.values()))] in lines
    for task in ("coco-o365", "lvis"):
        for row in comparison_table(task).rows:
            assert [row.label, *(f"{v:.1f}" for v in row.ap.values())] in lines
    printed = [line[-3:] for line in lines]
    for table in TABLES:
        if table.number >= 4:
            for row in table.rows:
                assert [f"{v:.1f}" for v in row.ap.values()] in printed


def test_only_comparisons_of_methods_are_found_by_task():
    assert comparison_table("coco-split1").number == 1
    assert comparison_table("shapes") is None
