"""The ablation presets against the paper's tables, and against what each row says it is made of."""

from pathlib import Path

import pytest

from cissod_bench.leaderboard.paper import TABLES
from cissod_bench.methods.base import Context, MethodConfig
from cissod_bench.methods.gbs.ablations import ABLATIONS, Ablation
from cissod_bench.methods.gbs.gbr import GradientReweightedFocalLoss
from cissod_bench.methods.gbs.gbt import ClassThreshold
from cissod_bench.methods.registry import get_method
from cissod_bench.ssod.component import component

CONTEXT = Context(
    num_classes=3,
    iterations=180_000,
    burn_in=0,
    unsup_weight=4.0,
    theta=0.9,
    labeled_images=10,
    labeled_boxes=(5, 4, 3),
    rfs_threshold=0.1,
    crs_gamma=0.5,
    minority=(1, 2),
    minority_images=Path("minority.txt"),
)


def configured(ablation: Ablation) -> MethodConfig:
    method = get_method(ablation.method)
    return method.configure(CONTEXT, method.options(ablation.options))


def test_nine_rows_of_table_4_and_six_of_table_5() -> None:
    tables = [ablation.table for ablation in ABLATIONS.values()]
    assert (tables.count(4), tables.count(5)) == (9, 6)


@pytest.mark.parametrize("name", [name for name, ablation in ABLATIONS.items() if ablation.table == 4])
def test_a_row_of_table_4_has_the_parts_of_its_title_and_no_others(name: str) -> None:
    made, title = configured(ABLATIONS[name]), ABLATIONS[name].title
    loss = dict(made.loss_cls)
    reweighted = loss["type"] == component(GradientReweightedFocalLoss)["type"] and loss["reweight"]
    assert reweighted == ("GbR" in title)
    focal = loss["type"] == component(GradientReweightedFocalLoss)["type"] and loss["gamma"] > 0
    assert focal == ("GbR" in title or "FL" in title)
    assert (made.threshold["type"] == component(ClassThreshold)["type"]) == ("GbT" in title)
    assert bool(made.hooks) == ("CrS" in title)
    assert (made.labeled_repeat is not None) == ("CrS" in title), "RFS of D_l is a part of CrS"


def test_the_full_method_is_the_last_row_of_both_tables() -> None:
    gbs = get_method("gbs")
    full = gbs.configure(CONTEXT, gbs.options({}))
    assert configured(ABLATIONS["crs-gbt-gbr"]) == full
    assert configured(ABLATIONS["threshold-gbt"]) == full
    assert configured(ABLATIONS["threshold-0.9"]) == configured(ABLATIONS["crs-gbr"]), (
        "Table 4 and 5 print the same numbers"
    )
    plain = get_method("soft-teacher")
    assert configured(ABLATIONS["none"]) == plain.configure(CONTEXT, plain.options({}))


@pytest.mark.parametrize("table", [4, 5])
def test_the_rows_are_those_of_the_papers_table_in_its_order(table: int) -> None:
    ours = sorted((each for each in ABLATIONS.values() if each.table == table), key=lambda each: each.row)
    printed = next(each for each in TABLES if each.number == table)
    assert [each.title for each in ours] == [row.label for row in printed.rows]
