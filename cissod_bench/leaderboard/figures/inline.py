"""A figure as a part of a page: the SVG that matplotlib draws, in the page's colours and with words for its points."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from matplotlib.figure import Figure

from cissod_bench.errors import one_line
from cissod_bench.leaderboard.figures.style import Plot, settle
from cissod_bench.splits.plot import picture

SVG, LINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
REM_PER_INCH = 8.0
"""Letters of 10 points in a figure are about as large as those of the page."""
COLORS_OF_PAGE = {"fill: #ffffff": "fill: none", "#000000": "currentColor", "#0072b2": "var(--blue, #0072b2)"}
"""Black is the colour of the text, which is white on a dark page; there, blue has to be lighter."""


def inline_svg(figure: Figure, title: str, name: str) -> str:
    """The figure as an `<svg>` for HTML. It holds no script, style sheet, link or comment.

    Args:
        figure: the figure.
        title: what it shows, for those who do not see it.
        name: unique in the page; in front of the ids that the figure needs.
    """
    settle(figure)
    root = ET.fromstring(picture(figure, "svg", letters=True))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    _add_hints(root, figure.hints if isinstance(figure, Plot) else {})
    _rename_ids(root, name)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        if LINK in element.attrib:
            element.set("href", element.attrib.pop(LINK))
        if "style" in element.attrib:
            for color, of_page in COLORS_OF_PAGE.items():
                element.set("style", element.attrib["style"].replace(color, of_page))
    _round(root)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("style", f"max-width: {REM_PER_INCH * figure.get_figwidth():.0f}rem")
    root.attrib |= {"role": "img", "aria-label": one_line(title), "xmlns": f"{SVG}", "fill": "currentColor"}
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _add_hints(root: ET.Element, hints: Mapping[str, Sequence[str]]) -> None:
    """A `<title>` in each point of the artists that have words: browsers show it under the pointer."""
    for group in root.iter():
        texts = hints.get(group.get("id", ""), ())
        for point, text in zip(list(group.iter(f"{{{SVG}}}use")), texts, strict=False):
            ET.SubElement(point, f"{{{SVG}}}title").text = text


def _rename_ids(root: ET.Element, name: str) -> None:
    """Ids that something refers to get the figure's name in front; the others are dropped."""
    texts = [value for element in root.iter() for value in element.attrib.values()]
    needed = {found for text in texts for found in re.findall(r"(?:^#|url\(#)([\w-]+)", text)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in needed:
            element.set("id", f"{name}-{own}")
        for key, value in element.attrib.items():
            element.set(key, re.sub(r"^#(?=[\w-]+$)|(?<=url\(#)(?=[\w-])", lambda found: f"{found[0]}{name}-", value))


def _round(root: ET.Element) -> None:
    """Coordinates with two decimals: a hundredth of a point is not seen, and a page holds many of them."""
    for element in root.iter():
        for key in ("d", "x", "y", "transform", "points", "viewBox"):
            if key in element.attrib:
                shorter = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", element.attrib[key])
                element.set(key, re.sub(r"\s*\n\s*", " ", shorter).strip())
