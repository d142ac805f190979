"""Parts of a configuration, named by their class.

mmengine looks up a `type` in its registries, and imports a name that none of them has. So `component` writes the
importable name of a class or function: editors find it, nothing has to be imported so that it is registered, and a
written configuration needs the installed package and mmdet's runner, and no more.
"""

from collections.abc import Callable
from typing import Any


def component(part: Callable[..., Any], /, **arguments: Any) -> dict[str, Any]:
    """Configuration that mmengine builds `part(**arguments)` from.

    Args:
        part: a class, or a function, at the top level of a module.
        arguments: its arguments; those that the framework fills in are left out.

    Raises:
        ValueError: mmengine could not import it by its name, since it stands inside of a function.
    """
    if "<" in part.__qualname__:
        raise ValueError(f"{part.__qualname__} of {part.__module__} has no importable name: put it at the top level.")
    return {"type": f"{part.__module__}.{part.__qualname__}", **arguments}
