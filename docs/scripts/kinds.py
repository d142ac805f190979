"""What values the options of a method take, in words, from their types."""

import importlib
from typing import Any

from msgspec import inspect

from cissod_bench.methods.base import Method
from cissod_bench.methods.option_types import MOST
from cissod_bench.methods.options import options_alone


def option_kinds(method: Method) -> dict[str, str]:
    """Name of each option -> the values that it takes."""
    shown: Any = inspect.type_info(importlib.import_module(options_alone(method).module).Options)
    return {field.name: _kind(field.type) for field in shown.fields}


def _kind(kind: Any) -> str:
    match kind:
        case inspect.UnionType(types=parts):
            return " or ".join(_kind(part) for part in parts if not isinstance(part, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.FloatType():
            return f"number {_limits(kind)}".strip()
        case inspect.IntType():
            return f"whole number {_limits(kind)}".strip()
    return {inspect.BoolType: "`true`, `false`", inspect.StrType: "text"}[type(kind)]


def _limits(kind: Any) -> str:
    if kind.ge is not None and kind.le not in (None, MOST):
        return f"{kind.ge:g} to {kind.le:g}"
    limits = [f"{sign} {value:g}" for sign, value in (("≥", kind.ge), (">", kind.gt)) if value is not None]
    limits += [f"{sign} {value:g}" for sign, value in (("≤", kind.le), ("<", kind.lt)) if value not in (None, MOST)]
    return ", ".join(limits)
