"""A Python file of the user's as a module: a method of their own, which no package has."""

import sys
from pathlib import Path
from types import ModuleType

from cissod_bench.errors import UserError, blaming
from cissod_bench.io import sha256_bytes


def import_file(path: Path) -> ModuleType:
    """Run a Python file as a module, once for each content.

    The module can be imported afterwards by its name, which follows from the content, as `component` needs it.

    Raises:
        UserError: no such file, or an exception while it runs, with its line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give the Python file of a method.") from None
    name = f"cissod_bench_method_{sha256_bytes(content)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # type hints are looked up there
    try:
        with blaming(path):
            exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
