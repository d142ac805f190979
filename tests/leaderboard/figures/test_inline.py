"""A figure in a page: words for its points, the colours of the page, and nothing that a browser would act on."""

import re
from xml.etree import ElementTree as ET

import pytest

from cissod_bench.leaderboard.figures.inline import inline_svg
from cissod_bench.leaderboard.figures.per_class import class_ap
from cissod_bench.leaderboard.series import ClassSeries

HOSTILE = "</svg><script>alert(1)</script>--><b>&"


def drawn(name: str = "figure-1", method: str = "gbs", classes: tuple[str, ...] = ("cat", "dog", "cow")) -> str:
    values = {method: (0.3, None, 0.125), "rfs": (0.2, 0.4, 0.0)}
    return inline_svg(class_ap(ClassSeries(classes, "boxes", ("maj", "maj", "min"), values)), "AP per class", name)


def elements(svg: str, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_every_point_says_what_it_is() -> None:
    found = [element.text for element in elements(drawn(), "title")]
    assert found == ["cat, gbs: 30.0", "cow, gbs: 12.5", "cat, rfs: 20.0", "dog, rfs: 40.0", "cow, rfs: 0.0"]


def test_letters_are_letters() -> None:
    texts = {"".join(element.itertext()).strip() for element in elements(drawn(), "text")}
    assert {"cat", "dog", "cow", "majority (2)", "minority (1)", "gbs", "rfs", "AP in percent"} <= texts


def test_two_figures_share_no_id() -> None:
    one, two = (set(re.findall(r' id="(.*?)"', drawn(name))) for name in ("figure-1", "figure-2"))
    assert one
    assert not one & two
    assert one == set(re.findall(r'(?:href="#|url\(#)([\w-]+)', drawn("figure-1"))), "each of them is needed"


def test_the_colours_are_those_of_the_page() -> None:
    svg = drawn()
    assert "#000000" not in svg
    assert "fill: #ffffff" not in svg
    assert "currentColor" in svg
    assert 'role="img"' in svg
    assert 'aria-label="AP per class"' in svg


@pytest.mark.parametrize("where", ["method", "class"])
def test_hostile_names_are_text(where: str) -> None:
    svg = drawn(method=HOSTILE) if where == "method" else drawn(classes=(HOSTILE, "dog", "cow"))
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "title"}
    assert any(HOSTILE in (element.text or "") for element in elements(svg, "title"))
    assert "<!--" not in svg
    assert not re.search(r"<script|\son\w+=|https?://(?!www\.w3\.org)", svg.replace("&lt;", ""))


def test_the_same_figure_has_the_same_text() -> None:
    assert drawn() == drawn()
