"""Names of what a method logs, read from its source: no torch is needed, and nothing is listed twice."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path


def logged_names(module: str) -> list[str]:
    """What the code of a method logs beyond what every run does, in the order of its files.

    These are the keys that `diagnostics()` returns, one number a class; the names given to `update_scalar`; and the
    losses that a refinement adds.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin)
    # A method with hooks of its own has a folder; the others share one.
    files = [file] if module.rpartition(".")[0] == "cissod_bench.baselines" else sorted(file.parent.glob("*.py"))
    found = [name for each in files for name in _names(ast.parse(each.read_text(encoding="utf-8")))]
    return list(dict.fromkeys(found))


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(body=body):
                for part in body:
                    if isinstance(part, ast.FunctionDef) and part.name == "diagnostics":
                        yield from _keys_returned(part, node)
                    if isinstance(part, ast.FunctionDef) and part.name == "loss":
                        yield from (name for name in _keys_returned(part, node) if name.startswith("loss_"))
            case ast.Call(func=ast.Attribute(attr="update_scalar"), args=[ast.Constant(value=str(name)), *_]):
                yield name.removeprefix("train/")


def _keys_returned(function: ast.FunctionDef, owner: ast.ClassDef) -> Iterator[str]:
    """Keys of the dictionaries that a method returns, itself or by an attribute that it returns."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Dict() as shown):
                yield from _keys(shown)
            case ast.Return(value=ast.Attribute(attr=attribute)):
                for other in ast.walk(owner):
                    match other:
                        case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Dict() as shown) if (
                            name == attribute
                        ):
                            yield from _keys(shown)


def _keys(shown: ast.Dict) -> Iterator[str]:
    yield from (key.value for key in shown.keys if isinstance(key, ast.Constant))
