"""The pages hang together: the list of the site, links and anchors, headings of methods, options of commands."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

import cissod_bench
from cissod_bench.cli.main import app
from cissod_bench.methods.registry import METHODS
from cissod_bench.training.spec import RunSpec, choose_method, parse_options
from tests.docs.pages import DOCS, ROOT

PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
HEADINGS = [
    "Idea",
    "Usage",
    "Options",
    "What is logged",
    "Differences from the paper and the released code",
    "Results",
    "Commands behind the results",
    "Citation",
]
PROGRAM: Any = typer.main.get_command(app)
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.DOTALL | re.MULTILINE)


def test_every_page_is_in_the_list_of_the_site_once() -> None:
    listed = list(_leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_resolve(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside of the repository"
        if anchor:
            assert anchor in _anchors(target), f"{link}: no such heading"


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as far as a code host and the site give a heading the same one."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    letters = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", text) for text in letters} & {re.sub(r"[-\s]+", "-", text) for text in letters}


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_has_the_fixed_headings(name: str) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == HEADINGS


def test_every_method_is_compared_side_by_side() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    section = text[text.index("## Side by side") : text.index("## What is our reading")]
    assert re.findall(r"^\| \[`([a-z0-9-]+)`\]", section, flags=re.MULTILINE) == list(METHODS)


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: cissod_bench\.(\w+)$", text, flags=re.MULTILINE))
    shown |= {
        alias for alias in ("methods", "tasks", "detectors") if re.search(rf"^::: .*\b{alias}\.describe$", text, re.M)
    }
    assert shown == set(cissod_bench.__all__) - {"__version__", "api"}


def test_the_options_of_every_printed_command_exist() -> None:
    checked = 0
    for page in PAGES:
        for line in _commands(page.read_text(encoding="utf-8")):
            _check(line, page.name)
            checked += 1
    assert checked > 100


def _commands(text: str) -> Iterator[str]:
    """The commands in blocks of a page and in its running text, a line each."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    lines += [" ".join(each.split()) for each in re.findall(r"`(cissod-bench [^`]+)`", FENCED.sub("", text))]
    return (line[line.index("cissod-bench ") :] for line in lines if re.match(r"(srun )?cissod-bench ", line))


def _check(line: str, where: str) -> None:
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command = PROGRAM
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        names = words.pop(0).split("|")  # "list methods|tasks"
        assert set(names) <= set(command.commands), f"{where}: {line}: no command {' or '.join(names)}"
        command = command.commands[names[0]]
    known = {*_options(command), "--help", "--install-completion", "--show-completion"}
    if command.name == "sweep":  # hands on what it does not know
        known |= _options(PROGRAM.commands["run"])
    unknown = [word for word in words if word.startswith("-") and word not in known]
    assert unknown == [], f"{where}: {line}"
    given = {name: [value for option, value in pairwise(words) if option == name] for name in ("--method", "-o")}
    if command.name == "run" and all(name in METHODS for name in given["--method"]) and given["--method"]:
        spec = RunSpec(task="shapes", method=given["--method"][0], options=parse_options(given["-o"]))
        choose_method(spec).resolved()  # raises where the method lacks an option, or an option does not take the value


def _options(command: click.Command) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
