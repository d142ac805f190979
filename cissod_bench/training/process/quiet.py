"""Imports of mmdet without its output."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from cissod_bench.errors import UserError
from cissod_bench.extras import remedy_of_import


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Suppress what mmdet prints while it is imported, about optional packages that are not needed here.

    Raises:
        UserError: a package of an extra is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        remedy = remedy_of_import(error)
        if remedy is None:
            raise
        raise UserError(remedy) from error
