"""Read a Python file of settings as data: what mmdet's configuration files are made of, and nothing that could do harm.

Assignments of numbers, texts, lists, tuples, `dict(...)`, earlier names and arithmetic are read; nothing is executed.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cissod_bench.errors import UserError

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_LARGEST = 1e9
"""Items, characters or magnitude of what an operator makes; more is a mistake or an attack."""


def read_settings(file: Path, source: bytes) -> dict[str, Any]:
    """The values of all names that a file assigns at its top level.

    Args:
        file: its name, for messages.
        source: its content.

    Raises:
        UserError: no Python, or something else than settings; the message has the line.
    """
    try:
        tree = ast.parse(source, filename=str(file))
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: not Python ({error.msg}).") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{file}: not Python ({error}).") from None
    found: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        if not (isinstance(statement, ast.Assign) and all(isinstance(each, ast.Name) for each in statement.targets)):
            raise UserError(
                f"{file}, line {statement.lineno}: only assignments NAME = VALUE are read; nothing is executed."
            )
        try:
            value = _value(statement.value, found)
        except _NotAllowed as error:
            raise UserError(f"{file}, line {error.line}: {error}") from None
        except RecursionError:
            raise UserError(f"{file}, line {statement.lineno}: nested too deeply.") from None
        found |= {each.id: value for each in statement.targets if isinstance(each, ast.Name)}
    return found


_Pair = tuple[ast.expr | None, ast.expr]
"""Key and value of a dictionary."""


class _NotAllowed(Exception):
    def __init__(self, node: ast.expr, reason: str) -> None:
        super().__init__(reason)
        self.line = node.lineno


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.List(elts=items):
            return [_value(item, names) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.Dict(keys=keys, values=values):
            return _dictionary(node, list(zip(keys, values, strict=True)), names)
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            given: list[_Pair] = [(None, each) for each in args]
            given += [
                (None if each.arg is None else ast.Constant(each.arg, lineno=node.lineno), each.value)
                for each in keywords
            ]
            return _dictionary(node, given, names)
        case ast.Name(id=name):
            if name not in names:
                raise _NotAllowed(node, f"{name} is not assigned above this line.")
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _calculated(node, lambda: -_value(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            one, other = _value(left, names), _value(right, names)
            if isinstance(op, ast.Mult) and _size(one) * _size(other) > _LARGEST:
                raise _NotAllowed(node, "the value is too large.")
            return _calculated(node, lambda: _OPERATORS[type(op)](one, other))
    raise _NotAllowed(
        node, f"{ast.unparse(node)[:60]!r} is not read: write numbers, texts, lists, dict(...) or names assigned above."
    )


def _dictionary(node: ast.expr, pairs: list[_Pair], names: Mapping[str, Any]) -> dict[str, Any]:
    """A dictionary of (key, value) nodes; without a key, the value is a dictionary to take over."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        found = _value(value, names)
        if key is None:
            if not isinstance(found, dict):
                raise _NotAllowed(node, "what a dictionary takes over must be a dictionary.")
            result |= found
            continue
        name = _value(key, names)
        if not isinstance(name, str):
            raise _NotAllowed(node, f"{name!r} is no text: keys of dictionaries are texts.")
        result[name] = found
    return result


def _calculated(node: ast.expr, calculate: Callable[[], Any]) -> Any:
    try:
        value = calculate()
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _NotAllowed(node, f"cannot be calculated ({error}).") from None
    if _size(value) > _LARGEST:
        raise _NotAllowed(node, "the value is too large.")
    return value


def _size(value: Any) -> float:
    """Length of a list or text, magnitude of a number."""
    if isinstance(value, int | float):
        return abs(value)
    return len(value) if isinstance(value, str | list | tuple) else 1
