"""Errors that a user can fix: the command line prints one sentence and exits with code 2."""

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from cissod_bench.extras import remedy_of_import

_CONTROLS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """A text that may come from a file, safe to print: control characters, which could move the cursor or change the
    direction of writing, halves of characters, and what is none are shown as escapes. Tabs and line ends stay.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def one_line(text: str) -> str:
    """The same with a space for each tab and line end."""
    return printable(re.sub(r"\r\n|[\t\n\v\f\r\x85\u2028\u2029]", " ", text))


class UserError(Exception):
    """Input that cannot be used. The message names the file, the item and what to do."""


class Remark(UserWarning):
    """Something that a user should know and that stops nothing: the command line prints it as one sentence."""


class Stopped(Exception):
    """A signal stopped a run, which wrote a checkpoint; the message says where it resumes.

    Attributes:
        exit_code: 128 plus the number of the signal, as shells report it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class ProcessDied(Exception):
    """A process of a run died; the message names it and gives its error."""


def unknown_name(kind: str, name: str, available: Iterable[str]) -> UserError:
    """Error for an unknown name, with the closest known one.

    Args:
        kind: what the name stands for, in the singular ("method", "task").
        name: the unknown name.
        available: the known names.
    """
    names = list(available)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names)}.")


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn an exception from a user's own code into an error that names the file, the line and the exception.

    Args:
        path: the user's file; the line is its innermost one in the traceback.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        remedy = remedy_of_import(error) if isinstance(error, ImportError) else None
        if remedy:
            raise UserError(f"{path}: {remedy}") from error
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if call.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error
