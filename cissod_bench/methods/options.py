"""The options of a method without its method: read from its source, so that torch and mmdet need not be loaded.

What a run is follows from the values of its options, and whoever lists hundreds of runs, or prints what a method can
be told, has no use for the losses that stand in the same file.
"""

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from cissod_bench.methods.base import Method


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        name: what the command line calls it.
        type: its type, as the method's file has it.
        default: its default, likewise.
        about: what it does and where its default is from.
    """

    name: str
    type: str
    default: str
    about: str


def options_alone(method: Method) -> Method:
    """The method with a module that has its `Options` and nothing else; a user's own method as it is."""
    return method if method.file is not None else replace(method, module=_reduced_module(method.module))


def describe_options(method: Method) -> list[Option]:
    """The options of a method in the order of its file, with types, defaults and the words that follow each."""
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
    """Run what `Options` in a module needs of its top-level statements; the name of the module with that alone."""
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
    sys.modules[module.__name__] = module  # type hints are looked up there
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
