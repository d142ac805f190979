"""Errors that a user can mend: the command line prints them as one sentence and exits with code 2."""

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(Exception):
    """Input that cannot be used. The message names the file, the item and what to do."""


class Remark(UserWarning):
    """Something that a user should know and that stops nothing: the command line prints it as one sentence."""


class Stopped(Exception):
    """A run that was asked to stop and left a checkpoint; the message says where it goes on.

    Attributes:
        exit_code: 128 and the number of the signal, as shells report it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class ProcessDied(Exception):
    """One of a run's processes died; the message names it and gives its own error."""


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


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn an exception out of a user's own code into an error that names the file, the line and the exception.

    Args:
        path: the user's file; the line is the innermost one of it that had a part in the exception.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
