"""What the plots draw."""

import numpy as np

from cissod_bench.leaderboard.plots import class_ap, render
from cissod_bench.leaderboard.series import ClassSeries

SERIES = ClassSeries(("a", "b", "c"), "boxes in D_l", {"gbs": (0.3, None, 0.1), "rfs": (0.2, 0.4, 0.0)})


def test_classes_stand_at_their_rank_with_their_ap_in_percent():
    axes = class_ap(SERIES, "title").axes[0]
    points = {artist.get_label(): np.ma.filled(artist.get_offsets(), -1.0) for artist in axes.collections}
    np.testing.assert_allclose(points["gbs"], [[1, 30], [-1, -1], [3, 10]])
    np.testing.assert_allclose(points["rfs"], [[1, 20], [2, 40], [3, 0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]


def test_rendering_twice_gives_the_same_bytes():
    first, second = (render(class_ap(SERIES, "title")) for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in first["svg"]
