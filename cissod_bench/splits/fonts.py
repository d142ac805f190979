"""Names in pictures as they are: no formulas, and characters that a font has.

Matplotlib's own font has no Chinese, for example. Where an installed font has what it lacks, that one is used; else the
characters are drawn as their codes, and a warning says so once.
"""

import functools
import warnings

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from cissod_bench.errors import Remark, one_line

DEFAULT = "DejaVu Sans"
_remarked: list[str] = []


def literal(text: str) -> str:
    """Text that matplotlib draws as it is, whatever dollar signs it has; characters that no font has are codes."""
    text = one_line(text)
    letters = lacking(text)
    if letters and font_with(frozenset(letters)) is None:
        text = as_codes(text, letters)
    return text.replace("$", r"\$")


def lacking(text: str) -> set[str]:
    """Characters of a text that matplotlib's own font lacks."""
    return {
        letter for letter in text if letter.isprintable() and not letter.isspace() and not _has(default_font(), letter)
    }


@functools.cache
def font_with(letters: frozenset[str]) -> str | None:
    """File of an installed font that has all these characters; None if there is none.

    It is the upright file of normal weight in its family, the one that a text in that family is drawn with.
    """
    # "Last Resort" has every character, and draws a box with the name of its script.
    names = sorted(
        {entry.name for entry in font_manager.fontManager.ttflist if not entry.name.startswith("Last Resort")}
    )
    for name in names:
        try:
            file = font_manager.findfont(name, fallback_to_default=False)
            if all(_has(file, letter) for letter in letters):
                return str(file)
        except (OSError, RuntimeError, ValueError):  # a font file that is gone or damaged
            continue
    return None


def as_codes(text: str, letters: set[str]) -> str:
    """The text with some of its characters written as codes, and once in a process a remark that it is so."""
    if not _remarked:
        _remarked.append(text)
        warnings.warn(
            f"No installed font has the characters of {text!r}: they, and any others, are drawn as codes. "
            "Install a font that has them, such as Noto Sans.",
            Remark,
            stacklevel=3,
        )
    return "".join(ascii(letter)[1:-1] if letter in letters else letter for letter in text)


def make_readable(figure: Figure) -> None:
    """Give every text of a figure a font that has its characters, where one is installed; see also `literal`."""
    for text in figure.findobj(Text):
        letters = lacking(text.get_text())
        if not letters:
            continue
        file = font_with(frozenset(letters))
        if file is not None:
            text.set_fontfamily([DEFAULT, font_manager.get_font(file).family_name])


@functools.cache
def default_font() -> str:
    """File of matplotlib's own font."""
    return font_manager.findfont(DEFAULT)


@functools.lru_cache(maxsize=65536)
def _has(file: str, letter: str) -> bool:
    return _font(file).get_char_index(ord(letter)) != 0


@functools.lru_cache(maxsize=64)
def _font(file: str) -> FT2Font:
    return FT2Font(file)
