"""A run spec as command-line arguments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.training.spec import RunSpec


def run_arguments(spec: RunSpec) -> list[str]:
    """Arguments of `cissod-bench run` for a spec, without defaults."""
    return [word for name, value in _given(spec) for word in _words(name, value)]


def _given(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(spec):
        value = getattr(spec, field.name)
        if field.required or value != (
            field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        ):
            yield field.name, value


def _words(name: str, value: Any) -> list[str]:
    match name:
        case "options":
            return [word for key, each in value.items() for word in ("--option", f"{key}={_option(each)}")]
        case "overrides":
            return [word for key, each in value.items() for word in ("--set", f"{key}={each!r}")]
        case "loggers":
            return [word for each in value or ("none",) for word in ("--logger", each)]
    if value is True:
        return [f"--{name.replace('_', '-')}"]
    return [f"--{name.replace('_', '-')}", str(value)]


def _option(value: Any) -> str:
    """An option as text that parses to its value."""
    if isinstance(value, str | Path):
        return str(value)
    return msgspec.json.encode(value).decode()
