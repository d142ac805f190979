"""The plot shows the numbers of the statistics, at 3 and at 1,203 classes, the same bytes every time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.splits.plot import plot_figure_4, plot_split, write_figure


def statistics(classes: int, groups: tuple[str, ...]) -> dict[str, Any]:
    rows = [
        {
            "name": f"class {number}",
            "group": groups[number % len(groups)],
            "train_boxes": 10_000 // (number + 1),
            "unlabeled_boxes": 9_000 // (classes - number),
            "labeled_boxes": number % 7 * 10,
        }
        for number in range(classes)
    ]
    return {"classes": rows, "groups": {group: {} for group in groups}}


@pytest.mark.parametrize(("classes", "groups"), [(3, ("maj", "min")), (80, ("maj", "min")), (1203, ("f", "c", "r"))])
def test_every_class_is_at_its_rank_and_count(classes: int, groups: tuple[str, ...]) -> None:
    content = statistics(classes, groups)
    figure = plot_split(content, "title")
    for axes, reference in zip(figure.axes, ("train_boxes", "unlabeled_boxes"), strict=True):
        ranked = sorted(content["classes"], key=lambda row: (-row[reference], row["name"]))
        for group, points in zip(groups, axes.collections[1:], strict=True):
            expected = [
                (rank, row["labeled_boxes"] or 0.4) for rank, row in enumerate(ranked, 1) if row["group"] == group
            ]
            assert np.asarray(points.get_offsets()).tolist() == [list(pair) for pair in expected]
        assert axes.get_yscale() == "log"


def test_figure_4_has_a_panel_a_split_with_its_groups_and_the_line_of_none() -> None:
    splits = [("one", statistics(80, ("maj", "min"))), ("two", statistics(365, ("maj", "min")))]
    figure = plot_figure_4([*splits, ("three", statistics(1203, ("f", "c", "r")))])
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "three"]
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert legends[0] == ["original data", "$D_l$, majority (40)", "$D_l$, minority (40)"]
    assert legends[2][1:] == ["$D_l$, frequent (401)", "$D_l$, common (401)", "$D_l$, rare (401)"]
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_yticklabels()]
        assert ticks == ["0", *(f"$10^{{{exponent}}}$" for exponent in range(5))]  # up to 20,000
        assert axes.get_ylim()[0] == axes.get_yticks()[0]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_picture_every_time(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        figure = plot_figure_4([("one", statistics(80, ("maj", "min"))), ("two", statistics(1203, ("f", "c", "r")))])
        write_figure(figure, tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert (tmp_path / f"a{suffix}").read_bytes()[:5] in (b"\x89PNG\r", b"<?xml", b"%PDF-")
