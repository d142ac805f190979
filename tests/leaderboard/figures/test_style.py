"""The files of a figure: the same every time, and fit for a paper."""

import re
import warnings
import zlib

import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from cissod_bench.leaderboard.figures.by_group import by_group
from cissod_bench.leaderboard.figures.style import Plot, group_style, label, render, settle
from cissod_bench.splits.plot import GROUP_STYLES
from tests.leaderboard.figures.test_by_group import APS, run_set


def test_rendering_twice_gives_the_same_bytes_without_dates() -> None:
    first, second = (render(by_group(run_set(APS)), "AP by group") for _ in range(2))
    assert first == second
    assert list(first) == ["png", "svg", "pdf"]
    assert first["png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in first["svg"]
    assert first["pdf"].startswith(b"%PDF")
    assert not re.search(rb"Date|Producer|Creator", first["pdf"])


def test_a_file_costs_one_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a layout engine, even one that does nothing, savefig draws everything once more for each file."""
    drawn: list[Figure] = []
    draw = Figure.draw

    def counted(figure: Figure, renderer: RendererBase) -> None:
        drawn.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    found = render(by_group(run_set(APS)), "AP by group")
    assert len(drawn) == len(found) == 3


def test_the_files_say_what_they_show() -> None:
    found = render(by_group(run_set(APS)), "AP by group: <shapes>")
    assert b"<title>AP by group: &lt;shapes&gt;</title>" in found["svg"]
    assert b"(AP by group: <shapes>)" in found["pdf"]
    assert b"AP by group: <shapes>" in found["png"]


def test_a_pdf_has_truetype_fonts_and_no_picture() -> None:
    content = render(by_group(run_set(APS)), "")["pdf"]
    texts = [content, *(_inflated(part) for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL))]
    assert any(b"/CIDFontType2" in text or b"/TrueType" in text for text in texts)
    assert not any(b"/Type3" in text or b"/Subtype /Image" in text for text in texts)


def test_a_group_looks_the_same_everywhere() -> None:
    assert {group: group_style(group) for group in GROUP_STYLES} == GROUP_STYLES
    assert group_style("official-r") == group_style("r")


def test_long_labels_lose_their_middle_and_dollars_are_no_formula() -> None:
    found = label(f"gbs ({'x' * 500}=1)")
    assert found.startswith("gbs (xxx")
    assert found.endswith("x=1)")
    assert len(found) <= 60
    assert label("US$ 1") == r"US\$ 1"


def test_a_legend_has_rows_of_the_same_length() -> None:
    figure = Plot(7.0, 3.0)
    (axes,) = figure.panels()
    for number in range(5):
        axes.plot([0, 1], [0, number], label=f"a method of number {number}")
    figure.legend_below()
    assert len(figure.legends[0]._ncols * [0]) == 3


def _inflated(part: bytes) -> bytes:
    try:
        return zlib.decompress(part)
    except zlib.error:
        return b""


@pytest.mark.parametrize("rows", [1, 4, 20])
def test_a_long_legend_leaves_room_for_the_data(rows: int) -> None:
    """20 rows with long names had made axes of no height, and matplotlib's warning on every report."""
    figure = Plot(7.0, 3.6)
    (axes,) = figure.panels()
    for row in range(rows):
        axes.plot([0, 1], [row, row], label=f'gbs (crs=false, gamma=0, gbr=false, threshold="fixed"), published {row}')
    axes.set_xticks(range(2), ["a class with a long name"] * 2, rotation=50, ha="right")
    figure.legend_below()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle(figure)
    assert axes.get_window_extent().height / figure.dpi > 1
