"""Draws the figures of the pages.

python docs/scripts/figures.py                draw the images of `shapes`
python docs/scripts/figures.py leaderboard    take a picture of the page of the published runs; needs Chromium
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import evidence
from PIL import Image, ImageDraw

from cissod_bench import api
from cissod_bench.leaderboard.report import write_report
from cissod_bench.synthetic.scenes import SIZE
from cissod_bench.synthetic.shapes import MAJORITY, draw_image

IMAGES = Path(__file__).parents[1] / "images"
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of the majority and of the minority, as in all plots."""


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
    name = "leaderboard" if "leaderboard" in sys.argv[1:] else "shapes"
    drawn = leaderboard() if name == "leaderboard" else shapes()
    drawn.quantize(256).save(IMAGES / f"{name}.png", optimize=True)
