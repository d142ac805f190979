"""Typed TOML: what fits arrives, and every error names the file, the entry and the value."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from cissod_bench.errors import UserError
from cissod_bench.toml import read_toml


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=2, le=5)]
    kind: Literal["round", "square"] = "round"
    parts: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind == "square" and self.parts:
            raise ValueError("a square has no parts.")


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    names: Annotated[list[str], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["a"])
    share: int | float | None = None


def read(folder: Path, text: str) -> Outer:
    (folder / "a.toml").write_text(text)
    return read_toml(folder / "a.toml", Outer, "test file", "Write one.")


def test_what_fits_arrives(tmp_path: Path) -> None:
    assert read(tmp_path, "share = 1\n[inner]\nsize = 3\nparts = [1, 0.5]\n") == Outer(
        Inner(3, parts=(1.0, 0.5)), share=1
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "[inner] is missing."),
        ("[inner]", "[inner] size is missing."),
        ("[iner]\nsize = 3", "Unknown entry 'iner'. Did you mean 'inner'? Available: inner, names, share."),
        ("[inner]\nsiz = 3", "Unknown entry [inner] 'siz'. Did you mean 'size'? Available: size, kind, parts."),
        ("inner = 3", "inner must be a table, not 3."),
        ("[inner]\nsize = 1", "[inner] size must be a whole number of at least 2, not 1."),
        ("[inner]\nsize = 6", "[inner] size must be a whole number of at most 5, not 6."),
        ("[inner]\nsize = 2.5", "[inner] size must be a whole number, not 2.5."),
        ("[inner]\nsize = true", "[inner] size must be a whole number, not True."),
        ("[inner]\nsize = 3\nkind = 'flat'", "[inner] kind must be one of round, square, not 'flat'."),
        ("[inner]\nsize = 3\nparts = [1]", "[inner] parts must be a list of 2, not [1]."),
        ("[inner]\nsize = 3\nparts = [1, 'x']", "[inner] parts[1] must be a number, not 'x'."),
        ("[inner]\nsize = 3\nkind = 'square'\nparts = [1, 2]", "[inner] a square has no parts."),
        ("names = []\n[inner]\nsize = 3", "names is empty."),
        ("names = [1]\n[inner]\nsize = 3", "names[0] must be a text, not 1."),
        ("share = 'all'\n[inner]\nsize = 3", "share must be a number, not 'all'."),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'a.toml'}: {problem}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no test file .*none\.toml\. Write one\."):
        read_toml(tmp_path / "none.toml", Outer, "test file", "Write one.")
    with pytest.raises(UserError, match=r"a\.toml is not a TOML file"):
        read(tmp_path, "[inner")
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"b\.toml is not a TOML file"):
        read_toml(tmp_path / "b.toml", Outer, "test file")
