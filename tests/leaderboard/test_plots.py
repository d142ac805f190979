"""What the plots draw."""

import numpy as np

from cissod_bench.leaderboard.plots import distribution, render

CLASSES = [
    {"name": "a", "group": "maj", "train_boxes": 10, "labeled_boxes": 3},
    {"name": "b", "group": "min", "train_boxes": 1000, "labeled_boxes": 0},
    {"name": "c", "group": "maj", "train_boxes": 100, "labeled_boxes": 20},
]


def test_distribution_sorts_by_frequency_and_keeps_groups_apart():
    axes = distribution({"classes": CLASSES}, "title").axes[0]
    points = {artist.get_label(): np.asarray(artist.get_offsets()).tolist() for artist in axes.collections[1:]}
    assert points == {"D_l, min (1 classes)": [[1, 0.5]], "D_l, maj (2 classes)": [[2, 20], [3, 3]]}
    assert axes.get_yscale() == "log"


def test_rendering_twice_gives_the_same_bytes():
    first, second = (render(distribution({"classes": CLASSES}, "title")) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first["svg"]
