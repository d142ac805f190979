"""Writing a split folder so that nothing but an empty folder or, on demand, another split is ever replaced."""

import contextlib
from functools import partial
from pathlib import Path

from cissod_bench.errors import UserError
from cissod_bench.io import staged_folder
from cissod_bench.splits.folder import MANIFEST, SPLIT_FILES, damaged_files, existing_digest, file_names, read_manifest


def staged_split(target: Path, *, replace: bool = False) -> contextlib.AbstractContextManager[Path]:
    """`io.staged_folder` for a split: nothing but an empty folder or, with `replace`, a split is ever replaced.

    A `target` that already holds the same split is left untouched.

    Raises:
        UserError: another process is writing the same split, or `target` cannot be replaced or written.
    """
    return staged_folder(target, replaces=partial(_may_replace, target, replace))


def _may_replace(target: Path, replace: bool, staging: Path) -> bool:
    """Whether the split in `staging` replaces what is at `target`: false if it is the same split.

    Raises:
        UserError: `target` holds this split with altered files, another split and `replace` is false, or files that are
            not part of a split.
    """
    digest = existing_digest(target)
    if not replace and digest is not None and digest == existing_digest(staging):
        damaged = damaged_files(target, read_manifest(target))
        if not damaged:
            return False
        raise UserError(
            f"{target} holds this split, but {', '.join(damaged)} were altered. Write it again with --force."
        )
    if not (target / MANIFEST).is_file():
        raise UserError(f"{target} is not empty and holds no split. Choose another folder.")
    if not replace:
        raise UserError(f"{target} already holds another split. Choose another folder, or replace it with --force.")
    foreign = [name for name in file_names(target) if name not in SPLIT_FILES and not name.startswith("data/")]
    if foreign:
        examples = ", ".join(foreign[:3])
        raise UserError(f"{target} holds files that are not part of a split ({examples}). Move them away first.")
    return True
