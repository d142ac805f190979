"""TOML files as typed structs, with errors in one sentence that names the file and the entry."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from cissod_bench.errors import UserError, unknown_name

Content = TypeVar("Content", bound=msgspec.Struct)

_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_EXPECTED = re.compile(r"Expected `([a-z]+).*?`(?: (\S+) (\S+)| of length (\d+), got \d+|, got .*)")
_LIMITS = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below"}


def read_toml(path: Path, kind: type[Content], what: str, remedy: str = "") -> Content:
    """Read a TOML file into a struct whose fields are its entries and whose nested structs are its tables.

    Args:
        path: the file.
        kind: the struct. Rules about several entries belong in its `__post_init__`, which raises `ValueError`.
        what: what the file is, such as "task file".
        remedy: what to do if the file does not exist, as a sentence.

    Raises:
        UserError: the file cannot be read, is not TOML, or has an entry that is unknown, missing, of the wrong type or
            out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no {what} {path}. {remedy}".rstrip()) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not a TOML file: {error}.") from None
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {_sentence(str(error), kind, content)}") from None


def _sentence(message: str, kind: type[msgspec.Struct], content: Any) -> str:
    """A message of msgspec in the terms of TOML, with the offending value."""
    problem, _, place = message.partition(" - at `$.")
    keys = re.findall(r"\w+", place)
    expected: Any = kind
    for key in keys:
        content = content[int(key) if isinstance(content, list) else key]
        expected = _entries(expected).get(key)
    table = isinstance(content, dict)
    where = f"[{'.'.join(keys)}]" if table and keys else _entry(place.rstrip("`"))
    if match := re.fullmatch("Object contains unknown field `(.*)`", problem):
        return str(unknown_name(f"entry {where}".strip(), match[1], _entries(expected)))
    if match := re.fullmatch("Object missing required field `(.*)`", problem):
        name = f"[{match[1]}]" if _struct(_entries(expected)[match[1]]) else match[1]
        return f"{where} {name} is missing.".lstrip()
    if problem.startswith("Invalid enum value"):
        choices = [
            str(choice) for part in get_args(expected) for choice in get_args(part) or [part] if part is not type(None)
        ]
        return f"{where} must be one of {', '.join(choices)}, not {content!r}."
    if "of length >= 1" in problem:
        return f"{where} is empty."
    if match := _EXPECTED.fullmatch(problem):
        wanted = "a number" if float in (expected, *get_args(expected)) else _WORDS[match[1]]
        limit = f" {_LIMITS[match[2]]} {match[3].removesuffix('.0')}" if match[2] else ""
        length = f" of {match[4]}" if match[4] else ""
        return f"{where} must be {wanted}{limit}{length}, not {content!r}."
    return f"{where} {problem}".lstrip()  # from a `__post_init__`


def _entry(place: str) -> str:
    """`table.name[0]` as `[table] name[0]`."""
    table, dot, name = place.rpartition(".")
    return f"[{table}] {name}" if dot else name


def _struct(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that a type is or includes, else None."""
    found = (part for part in (kind, *get_args(kind)) if isinstance(part, type) and issubclass(part, msgspec.Struct))
    return next(found, None)


def _entries(kind: Any) -> dict[str, Any]:
    """Names and types of the entries of a table."""
    struct = _struct(kind)
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)} if struct else {}
