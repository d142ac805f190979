"""Methods that are not part of this package: a Python file of the user's, or an entry point of an installed package.

Either defines what the files of the built-in methods define, `Options` and `configure`, and its own line of the
registry, `METHOD`. The digest of the source goes into the run's configuration and record: results of two versions of a
file are never taken for results of one method.
"""

import importlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from cissod_bench.errors import UserError, blaming
from cissod_bench.io import sha256_bytes
from cissod_bench.methods.base import Method
from cissod_bench.ssod.source_file import import_file

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "cissod_bench.methods"
"""Entry point group of installed methods: the entry's name is the method's, its value names the module."""

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What the name of a user's method looks like; it is part of folder names."""
_INTERFACE = ("METHOD", "Options", "configure")


def load_file(path: Path) -> Method:
    """The method in a Python file.

    Raises:
        UserError: no such file, an exception while it is imported, or a part of the interface that is missing or of
            the wrong kind.
    """
    module = import_file(path)
    return _checked(path, module, digest=sha256_bytes(path.read_bytes()))


def installed() -> dict[str, "EntryPoint"]:
    """Entry points of installed methods by their names; nothing of them is imported.

    Raises:
        UserError: two packages have a method of the same name.
    """
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in found and entry.value != found[entry.name].value:
            packages = f"{package_of(found[entry.name])} and {package_of(entry)}"
            raise UserError(f"Two installed packages have a method {entry.name!r}: {packages}. Remove one of them.")
        found[entry.name] = entry
    return found


def package_of(entry: "EntryPoint") -> str:
    """Name and version of the package that an entry point comes from."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def load_installed(entry: "EntryPoint") -> Method:
    """The method that an entry point names.

    Raises:
        UserError: its module cannot be imported, is not Python source, or does not follow the interface.
    """
    where = Path(f"entry point {entry.name} = {entry.value} of {package_of(entry)}")
    with blaming(where):
        module = importlib.import_module(entry.value)
    file = getattr(module, "__file__", None)  # modules that Python has built in lack the name
    if not file or not file.endswith(".py"):
        raise UserError(f"{where}: {file} is not Python source. Name the module that defines METHOD.")
    path = Path(file)
    method = _checked(path, module, digest=sha256_bytes(path.read_bytes()), package=package_of(entry))
    if method.name != entry.name:
        raise UserError(f"{where}: {path} calls its method {method.name!r}. Give both the same name.")
    return method


def _checked(path: Path, module: ModuleType, **fields: Any) -> Method:
    """The method of a module, if it has all that a method needs.

    Raises:
        UserError: what is missing or of the wrong kind.
    """
    missing = [name for name in _INTERFACE if not hasattr(module, name)]
    if missing == ["configure"] and hasattr(module, "parts"):
        raise UserError(
            f"{path}: written for version 0.1. Rename parts(setting, options) to configure(context, options), Parts "
            "to MethodConfig and a loss's self.serving to self.branch, and import from cissod_bench.methods.base; all "
            "fields are the same."
        )
    if missing:
        raise UserError(
            f"{path}: a method's file defines {', '.join(_INTERFACE)}; it lacks {', '.join(missing)}. "
            "`cissod-bench create method NAME` writes a file that has them."
        )
    problem = _problem(module.METHOD, module.Options, module.configure)
    if problem:
        raise UserError(f"{path}: {problem}")
    method: Method = module.METHOD
    return replace(method, module=module.__name__, file=path, **fields)


def _problem(method: Any, options: Any, configure: Any) -> str | None:
    """What is wrong with what a method's file defines."""
    if not isinstance(method, Method):
        return f"METHOD is {_kind(method)}, not a cissod_bench.methods.base.Method."
    if not NAME.fullmatch(method.name):
        return f"METHOD.name is {method.name!r}; use small letters, digits and single hyphens: it names run folders."
    if not (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        return f"Options is {_kind(options)}, not a sub-class of msgspec.Struct."
    without = [field.name for field in msgspec.structs.fields(options) if field.required]
    if without:
        return f"Options.{without[0]} has no default value; every option needs one."
    if not callable(configure):
        return f"configure is {_kind(configure)}, not a function configure(context, options)."
    return None


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
