"""Names in plots: as they are, in a font that has them, or as codes with a remark."""

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


def test_an_installed_font_that_has_the_characters_is_found() -> None:
    assert fonts.lacking("naïve Größe") == set()
    assert fonts.lacking("車 car") == {"車"}
    file = fonts.font_with(frozenset("ab"))
    assert file is not None
    assert fonts.font_with(frozenset("\U0010fffd")) is None
