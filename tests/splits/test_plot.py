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
                (rank, row["labeled_boxes"] or 0.6) for rank, row in enumerate(ranked, 1) if row["group"] == group
            ]
            assert np.asarray(points.get_offsets()).tolist() == [list(pair) for pair in expected]
        assert axes.get_yscale() == "log"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_picture_every_time(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        figure = plot_figure_4([("one", statistics(80, ("maj", "min"))), ("two", statistics(1203, ("f", "c", "r")))])
        write_figure(figure, tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert (tmp_path / f"a{suffix}").read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
