"""Import a user's own Python file, such as a method, as a module."""

import sys
from pathlib import Path
from types import ModuleType

from cissod_bench.errors import UserError, blaming
from cissod_bench.io import sha256_bytes


def import_file(path: Path) -> ModuleType:
    """Run a Python file as a module, once per content.

    Afterwards the module can be imported by its name, a digest of the content, as `component` requires.

    Raises:
        UserError: the file cannot be read, or raises an exception, whose line is named.
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
    sys.modules[name] = module  # so that type hints resolve
    try:
        with blaming(path):
            exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
