"""Components of a configuration, named by their class.

mmengine looks up a `type` in its registries and imports names that none of them has. So `component` writes the
importable path of a class or function: editors can follow it, nothing has to be imported just to be registered, and a
dumped configuration needs only the installed package and mmdet's runner.
"""

from collections.abc import Callable
from typing import Any


def component(part: Callable[..., Any], /, **arguments: Any) -> dict[str, Any]:
    """Configuration that mmengine builds `part(**arguments)` from.

    Args:
        part: a class, or a function, at the top level of a module.
        arguments: its arguments, except those that the framework supplies.

    Raises:
        ValueError: it is defined inside a function, so it has no importable path.
    """
    if "<" in part.__qualname__:
        raise ValueError(
            f"{part.__qualname__} of {part.__module__} has no importable path. Define it at the top level."
        )
    return {"type": f"{part.__module__}.{part.__qualname__}", **arguments}
