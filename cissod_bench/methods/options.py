"""The options of a method, read from its source without loading torch and mmdet.

The key of a run depends on its options. Listing hundreds of runs, or describing a method, should not import the losses
defined in the same file.
"""

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from cissod_bench.methods.base import Method


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        name: name on the command line.
        type: its type, as written in the method's file.
        default: its default, as written there.
        about: what it does, and the source of its default.
    """

    name: str
    type: str
    default: str
    about: str


def options_alone(method: Method) -> Method:
    """The method with a module that contains only its `Options`; a user's own method unchanged."""
    return method if method.file is not None else replace(method, module=_reduced_module(method.module))


def resolved_options(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option, as a record has it.

    Args:
        method: the method.
        given: some of its options, as values or as texts.

    Raises:
        UserError: an option that the method lacks, or a value of the wrong type.
    """
    options = options_alone(method).options(given)
    return dict(msgspec.json.decode(msgspec.json.encode(msgspec.structs.asdict(options), enc_hook=repr)))


def describe_options(method: Method) -> list[Option]:
    """The options of a method in the order of its file, with types, defaults and descriptions."""
    body = next(part.body for part in _tree(method).body if isinstance(part, ast.ClassDef) and part.name == "Options")
    found = []
    for position, part in enumerate(body):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None:
            after = body[position + 1] if position + 1 < len(body) else None
            about = ""
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    about = " ".join(text.split())
            found.append(Option(part.target.id, ast.unparse(part.annotation), ast.unparse(part.value), about))
    return found


def _tree(method: Method) -> ast.Module:
    return ast.parse(_source(method.module).read_text() if method.file is None else method.file.read_text())


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@functools.cache
def _reduced_module(name: str) -> str:
    """Run only the top-level statements of a module that `Options` needs; return the name of the resulting module."""
    tree = ast.parse(_source(name).read_text())
    binds = {bound: part for part in tree.body for bound in _bound_names(part)}
    needed: list[ast.stmt] = []
    waiting = ["Options"]
    while waiting:
        part = binds.get(waiting.pop())
        if part is not None and part not in needed:
            needed.append(part)
            waiting += [node.id for node in ast.walk(part) if isinstance(node, ast.Name)]
    module = ModuleType(f"cissod_bench.methods.options.{name.replace('.', '_')}")
    sys.modules[module.__name__] = module  # so that type hints resolve
    kept = ast.Module([part for part in tree.body if part in needed], type_ignores=[])
    exec(compile(kept, str(_source(name)), "exec"), module.__dict__)
    return module.__name__


def _bound_names(part: ast.stmt) -> Iterator[str]:
    match part:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
