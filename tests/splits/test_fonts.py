"""Names in plots: as they are, in a font that has them, or as codes with a remark."""

import re
import warnings

import pytest
from matplotlib.figure import Figure

from cissod_bench.errors import Remark
from cissod_bench.splits import fonts
from cissod_bench.splits.plot import picture


def titled(title: str) -> Figure:
    figure = Figure()
    figure.subplots().set_title(fonts.literal(title))
    return figure


@pytest.mark.parametrize("name", ["$", "US$ and A$", r"$\frac$", r"a\$b", "x_1^2", "Größe", "naïve"])
def test_a_name_is_drawn_as_it_is(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = picture(titled(name), "svg")
    # Matplotlib writes every text that it draws as a comment; formulas it draws otherwise.
    assert f"<!-- {name} -->".encode() in svg


def test_what_no_font_has_is_drawn_as_codes_with_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_with", lambda letters: None)
    monkeypatch.setattr(fonts, "_remarked", [])
    figure = Figure()
    with pytest.warns(Remark, match="No installed font has the characters of '車 car'"):
        first = fonts.literal("車 car")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no second remark, and no warning of a missing glyph
        figure.subplots().set_xticks([0, 1], [first, fonts.literal("$ 船")])
        svg = picture(figure, "svg")
    assert rb"<!-- \u8eca car -->" in svg
    assert rb"<!-- $ \u8239 -->" in svg


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_character_that_only_another_font_has_is_drawn_in_that_one(kind: str) -> None:
    name = "cat \U0001d4d0"  # a script letter that matplotlib's STIX font has, and its DejaVu Sans lacks
    assert fonts.lacking(name) == {"\U0001d4d0"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a missing glyph, which would be a box
        found = picture(titled(name), kind)
    if kind == "svg":
        assert re.search(rb'href="#(?!DejaVuSans-)[A-Z]', found), "a letter's outline in another font"
    assert found == picture(titled(name), kind)


def test_the_font_is_the_one_that_its_family_is_drawn_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bold italic of a family may have a character that its regular font lacks."""
    monkeypatch.setattr(fonts, "_has", lambda file, letter: file.endswith("STIXGeneralBolIta.ttf"))
    assert fonts.font_with(frozenset("\U0001d4d1")) is None


def test_an_installed_font_that_has_the_characters_is_found() -> None:
    assert fonts.lacking("naïve Größe") == set()
    assert fonts.lacking("車 car") == {"車"}
    file = fonts.font_with(frozenset("ab"))
    assert file is not None
    assert fonts.font_with(frozenset("\U0010fffd")) is None
