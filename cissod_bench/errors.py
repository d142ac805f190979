"""Errors that a user can mend: the command line prints them as one sentence and exits with code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Input that cannot be used. The message names the file, the item and what to do."""


def unknown_name(kind: str, name: str, available: Iterable[str]) -> UserError:
    """Error for a name that a registry lacks, with the closest one that it has.

    Args:
        kind: what the name stands for, in the singular ("method", "task").
        name: the name that was asked for.
        available: the names that exist.
    """
    names = list(available)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names)}.")
