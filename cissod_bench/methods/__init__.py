"""The methods: `names()` of the built-in ones, and what `describe(name)` knows of one.

Importing anything from here makes mmdet importable where mmcv has no compiled operators.
"""

import os
from typing import Any

from cissod_bench.ssod import mmcv_shim as operators

operators.install()


def names() -> list[str]:
    """Names of the built-in methods."""
    from cissod_bench.methods.registry import METHODS

    return list(METHODS)


def describe(name: str | os.PathLike[str]) -> dict[str, Any]:
    """A method's `name`, `version`, `family`, `title`, `citation` and `options`.

    Each option has `name`, `type`, `default` and `about`.

    Args:
        name: a method, or a method file (.py).

    Raises:
        UserError: no such method.

    Examples:
        >>> import cissod_bench as cb
        >>> [option["name"] for option in cb.methods.describe("rfs")["options"]]
        ['theta', 'threshold']
    """
    from dataclasses import asdict

    from cissod_bench.methods.options import describe_options
    from cissod_bench.methods.registry import get_method

    method = get_method(name)
    facts = {field: getattr(method, field) for field in ("name", "version", "family", "title", "citation")}
    return {**facts, "options": [asdict(option) for option in describe_options(method)]}
