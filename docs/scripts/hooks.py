"""What makes a site of pages that are plain Markdown on a code host; mkdocs calls the functions named `on_...`.

* A link to a file outside `docs/` leads to a page with the text of that file, which is added to the site.
* A block of shell commands directly followed by one of Python becomes two tabs.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
SHOWN = "files"
"""Folder of the site with the files from outside `docs/`."""
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".yml": "yaml", ".cff": "yaml"}

_FENCED = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_PAIR = re.compile(r"^```sh\n(?P<sh>.*?)^```\n\n```python\n(?P<python>.*?)^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every file outside `docs/` that a page links to, and for those that these link to."""
    from mkdocs.structure.files import File

    waiting = [page for source in DOCS.rglob("*.md") for page in outside_links(source.read_text(), _inside(source))]
    while waiting:
        target = waiting.pop()
        uri = page_of(target)
        if files.get_file_from_path(uri) is None:
            text = page_text(target)
            files.append(File.generated(config, uri, content=text))
            if target.endswith(".md"):
                waiting += outside_links((ROOT / target).read_text(), target)
            elif (ROOT / target).is_dir():
                waiting += [f"{target}/{name}" for name in listed(ROOT / target)]
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page as the site has it."""
    uri = page.file.src_uri
    return tabbed(markdown if uri.startswith(f"{SHOWN}/") else linked(markdown, f"docs/{uri}", uri))


def outside_links(text: str, source: str) -> list[str]:
    """Files and folders outside `docs/` that a page links to, relative to the repository.

    Args:
        text: the page.
        source: its path, relative to the repository.
    """
    targets = [_target(found[2], source) for found in _LINK.finditer(_FENCED.sub("", text))]
    return [each for each in targets if each is not None and not _is_page(each)]


def linked(text: str, source: str, uri: str) -> str:
    """A page whose links to files of the repository lead to pages of the site.

    Args:
        text: the page.
        source: its path, relative to the repository.
        uri: its place in the site.
    """

    def leads(found: re.Match[str]) -> str:
        target = _target(found[2], source)
        if target is None:
            return found[0]
        place = target.removeprefix("docs/") if _is_page(target) else page_of(target)
        return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(uri) or '.')}{found[3]}"

    fences = [found[0] for found in _FENCED.finditer(text)]
    parts = [_LINK.sub(leads, part) for part in _FENCED.sub("\0", text).split("\0")]
    return "".join(part + fence for part, fence in zip(parts, [*fences, ""], strict=True))


def tabbed(text: str) -> str:
    """A page with tabs where a block of `sh` is followed by one of `python`."""

    def tabs(found: re.Match[str]) -> str:
        blocks = (("Shell", "sh", found["sh"]), ("Python", "python", found["python"]))
        return "\n\n".join(f'=== "{title}"\n\n{_indented(_fence(kind, body))}' for title, kind, body in blocks)

    return _PAIR.sub(tabs, text)


def page_of(target: str) -> str:
    """Place in the site of a file outside `docs/`."""
    return f"{SHOWN}/{target.removesuffix('.md')}.md"


def page_text(target: str) -> str:
    """The page that shows a file or a folder outside `docs/`; pages in Markdown are shown as they look."""
    path, hidden = ROOT / target, "---\nsearch:\n  exclude: true\n---\n\n"
    if target.endswith(".md"):
        return hidden + linked(path.read_text(), target, page_of(target))
    if path.is_dir():
        entries = [f"* [{name}]({posixpath.basename(target)}/{name}.md)" for name in listed(path)]
        return "\n".join([f"{hidden}# {target}", "", *entries])
    return f"{hidden}# {target}\n\n~~~~ {LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}~~~~\n"


def listed(folder: Path) -> list[str]:
    """The files of a folder, by name."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "__init__.py")


def _target(link: str, source: str) -> str | None:
    """Path in the repository that a link leads to; None for one that leads to the network."""
    if re.match(r"[a-z]+:", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _is_page(target: str) -> bool:
    """Whether the site has that file anyhow."""
    return target.startswith("docs/") and not target.startswith("docs/scripts/")


def _fence(language: str, body: str) -> str:
    return f"```{language}\n{body}```"


def _inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
