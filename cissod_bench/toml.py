"""TOML files as typed structs, with errors in one sentence that names the file and the entry."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.io import read_regular

Content = TypeVar("Content", bound=msgspec.Struct)

LARGEST = 2**24
"""Bytes of a file that is read."""
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
    content = toml_content(path, what, remedy)
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {_sentence(str(error), kind, content)}") from None


def toml_content(path: Path, what: str, remedy: str = "") -> dict[str, Any]:
    """The content of a TOML file, in which texts have no NUL, and numbers are finite and of 64 bits.

    Args:
        path, what, remedy: as of `read_toml`.

    Raises:
        UserError: the file cannot be read or is not TOML, or a value is none of these.
    """
    try:
        content = tomllib.loads(read_regular(path, LARGEST).decode().replace("\r\n", "\n"))
    except FileNotFoundError:
        raise UserError(f"There is no {what} {path}. {remedy}".rstrip()) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or a number of thousands of digits
        raise UserError(f"{path} is not a TOML file: {error}.") from None
    for name, value in content.items():
        _check_value(path, name, value)
    return content


def _check_value(path: Path, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_value(path, f"{name}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_value(path, f"{name}[{index}]", inner)
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{path}: {name} has a NUL character.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {name} must be a finite number, not {value}.")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{path}: {name} is a number of more than 64 bits.")


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
