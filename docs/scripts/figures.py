"""Draws the figures of the pages.

python docs/scripts/figures.py                draw the images of `shapes`
python docs/scripts/figures.py curves         draw the published runs of the main methods over their iterations
python docs/scripts/figures.py leaderboard    take a picture of the page of the published runs; needs Chromium
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import evidence
from PIL import Image, ImageDraw

from cissod_bench import api
from cissod_bench.leaderboard.figures.over_iterations import iterations
from cissod_bench.leaderboard.figures.style import render
from cissod_bench.leaderboard.report import write_report
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.leaderboard.series import OBSERVED, PSEUDO_LABELS, observed_curves, run_curves
from cissod_bench.synthetic.scenes import SIZE
from cissod_bench.synthetic.shapes import MAJORITY, draw_image

IMAGES = Path(__file__).parents[1] / "images"
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of the majority and of the minority, as in all plots."""
MAIN_METHODS = ("supervised", "soft-teacher", "rfs", "gbs")
CURVES = {
    "shapes": ("iterations", *PSEUDO_LABELS),
    "shapes-lt": ("iterations", "pseudo_recall"),
    "traffic": (*PSEUDO_LABELS, "weights", "thresholds", "copies"),
}
"""Task -> what its page shows over iterations."""


def shapes(columns: int = 6, rows: int = 2, scale: int = 2, gap: int = 6) -> Image.Image:
    """The first validation images of `shapes` with their boxes, enlarged, in a grid."""
    cell = scale * SIZE + gap
    grid = Image.new("RGB", (columns * cell + gap, rows * cell + gap), "white")
    for place in range(columns * rows):
        pixels, annotations = draw_image("shapes", "val", 0, place + 1)
        picture = Image.fromarray(pixels).resize((scale * SIZE, scale * SIZE), Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(picture)
        for annotation in annotations:
            left, top, width, height = (scale * value for value in annotation["bbox"])
            color = BLUE if annotation["category_id"] <= len(MAJORITY) else ORANGE
            for border, paint in ((0, "white"), (1, color), (2, color), (3, "white")):
                corners = (left + border, top + border, left + width - 1 - border, top + height - 1 - border)
                pen.rectangle(corners, outline=paint)
        grid.paste(picture, (gap + place % columns * cell, gap + place // columns * cell))
    return grid


def curves() -> Iterator[tuple[str, Image.Image]]:
    """Name and image of each figure over iterations of the pages on results, one line for each run."""
    report, files = evidence.methods_alone(api.report(published=True)), RunFiles()
    for task, shown in CURVES.items():
        _, found = evidence.run_set_of(report, task)
        rows = {row.method: replace(row, distinction="") for row in found.rows}
        run_set = replace(found, rows=[rows[method] for method in MAIN_METHODS])  # one order, and so one colour each
        for what in shown:
            if what == "iterations":
                lines, (words, axis, scale) = run_curves(run_set, files), ("AP", "AP in percent", 100)
            else:
                lines, (words, axis, scale) = observed_curves(run_set, what, files), OBSERVED[what]
            drawn = render(iterations(lines, axis, scale), f"{words} over iterations: {task}")
            yield f"{task}-{what}", Image.open(BytesIO(drawn["png"]))


def leaderboard(width: int = 980, height: int = 1190) -> Image.Image:
    """The top of the page of `report --published` without ablations, as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(evidence.methods_alone(api.report(published=True)), Path(folder))
        page, picture = Path(folder, "index.html"), Path(folder, "page.png")
        subprocess.run(
            ["chromium", "--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}",
             f"--screenshot={picture}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip
        with Image.open(picture) as shown:
            return shown.convert("RGB")


if __name__ == "__main__":
    if "curves" in sys.argv[1:]:
        pictures = dict(curves())
    else:
        pictures = {"leaderboard": leaderboard()} if "leaderboard" in sys.argv[1:] else {"shapes": shapes()}
    for name, picture in pictures.items():
        picture.convert("RGB").quantize(256).save(IMAGES / f"{name}.png", optimize=True)
