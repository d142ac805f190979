"""One number per class: where the points are, which group a class is of, and which classes are named."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cissod_bench.leaderboard.figures.per_class import class_ap
from cissod_bench.leaderboard.series import ClassSeries
from cissod_bench.splits.plot import GROUP_STYLES

VALUES = {"gbs": (0.3, None, 0.1), "rfs": (0.2, 0.4, 0.0)}
SERIES = ClassSeries(("a", "b", "c"), "boxes in $D_l$", ("maj", "maj", "min"), VALUES)


def many(count: int, groups: tuple[str, ...]) -> ClassSeries:
    names = tuple(f"class {number}" for number in range(count))
    of_class = tuple(sorted((groups[number % len(groups)] for number in range(count)), key=groups.index))
    return ClassSeries(names, "boxes in $D_l$", of_class, {"gbs": tuple(number / count for number in range(count))})


def test_classes_stand_at_their_rank_with_their_ap_in_percent() -> None:
    axes = class_ap(SERIES).axes[0]
    points = {artist.get_label(): np.asarray(artist.get_offsets()) for artist in axes.collections}
    np.testing.assert_allclose(points["gbs"], [[1, 30], [3, 10]])
    np.testing.assert_allclose(points["rfs"], [[1, 20], [2, 40], [3, 0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize("groups", [("maj", "min"), ("f", "c", "r")])
def test_each_group_has_a_band_and_a_name_in_its_colour(groups: tuple[str, ...]) -> None:
    titles = {"maj": "majority", "min": "minority", "f": "frequent", "c": "common", "r": "rare"}
    axes = class_ap(many(12, groups)).axes[0]
    each = 12 // len(groups)
    spans = [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches]
    assert spans == [(each * number + 0.5, each * (number + 1) + 0.5) for number in range(len(groups))]
    colors = [GROUP_STYLES[group][0].lower() for group in groups]
    assert [to_hex(band.get_facecolor()) for band in axes.patches] == colors
    assert [text.get_text() for text in axes.texts] == [f"{titles[group]} ({each})" for group in groups]
    assert [text.get_color().lower() for text in axes.texts] == colors
    assert [text.get_color().lower() for text in axes.get_xticklabels()][::each] == colors


def test_classes_of_unknown_groups_have_no_band() -> None:
    axes = class_ap(ClassSeries(SERIES.names, SERIES.order, ("", "", ""), VALUES)).axes[0]
    assert len(axes.patches) == len(axes.texts) == 0


@pytest.mark.parametrize("count", [30, 80])
def test_the_names_of_80_classes_do_not_overlap(count: int) -> None:
    figure = class_ap(many(count, ("maj", "min")))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert [text.get_text() for text in labels] == [f"class {number}" for number in range(count)]
    boxes = [text.get_window_extent() for text in labels]
    if count == 80:  # upright: the boxes of slanting names cross where the letters do not
        assert all(one.x1 <= other.x0 for one, other in itertools.pairwise(boxes))
    assert all(box.y0 >= 0 for box in boxes)


def test_more_classes_have_whole_numbers() -> None:
    axes = class_ap(many(365, ("maj", "min"))).axes[0]
    axes.figure.draw_without_rendering()
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert "class 0" not in ticks
    assert all(text.isdigit() for text in ticks if text)
