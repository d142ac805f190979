"""`cissod-bench create`: a starting point for your own method."""

import re
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.layout.panels import PanelApp

app = PanelApp(help="Write a file to start your own method from.")


@app.callback()
def create() -> None:
    """Write a file to start your own method from."""


@app.command("method")
def method(
    name: Annotated[str, typer.Argument(help="Name of the method: lower-case letters, digits and hyphens.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: NAME.py in this folder, with _ for -.", show_default=False),
    ] = None,
) -> None:
    """Write a complete, commented method that trains.

    `run --method FILE` uses it.
    """
    from cissod_bench.errors import UserError
    from cissod_bench.io import write_text
    from cissod_bench.methods.registry import METHODS
    from cissod_bench.methods.user import NAME

    if not NAME.fullmatch(name):
        raise UserError(
            f"{name}: use lower-case letters, digits and single hyphens; the name becomes part of folder names."
        )
    if name in METHODS:
        raise UserError(f"{name}: a built-in method has this name. Choose another one.")
    file = out or Path(f"{name.replace('-', '_')}.py")
    if file.suffix != ".py":
        raise UserError(f"--out {file}: give a file name that ends with .py.")
    if file.exists():
        raise UserError(f"{file} exists already. Choose another --out.")
    write_text(file, template(name))
    say(f"{file}: try it with")
    say("  cissod-bench make-splits --task shapes")
    say(f"  cissod-bench run --task shapes --method {quote(str(file))} --schedule smoke")


def template(name: str) -> str:
    """Text of a method file for a method of that name."""
    from importlib.resources import files

    text = (files("cissod_bench.methods") / "template.py").read_text(encoding="utf-8")
    camel = "".join(part.capitalize() for part in re.split("-", name))
    camel = camel if camel[0].isalpha() else f"Method{camel}"
    return text.replace("my-method", name).replace("MyMethod", camel)
