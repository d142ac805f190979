"""The manifest of an exported split, given back to the split that was made from its lists."""

from pathlib import Path

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import write_json
from cissod_bench.splits.folder import MANIFEST, Manifest


def restore_manifest(folder: Path, sealed: Manifest, expected: Manifest) -> Manifest:
    """Give a split that was made from the lists of an export the manifest of the exported split, and so its digest.

    The manifests differ in what only the selection knows: its numbers of candidates, and that it was done elsewhere.

    Raises:
        UserError: the folder does not hold the exported split.
    """
    different = [
        name for name in ("seed", "source", "classes", "groups") if getattr(sealed, name) != getattr(expected, name)
    ]
    outputs = sealed.outputs.keys() | expected.outputs.keys()
    different += sorted(name for name in outputs if sealed.outputs.get(name) != expected.outputs.get(name))
    options = sealed.options.keys() | expected.options.keys()
    different += sorted(
        name for name in options - {"imported"} if sealed.options.get(name) != expected.options.get(name)
    )
    if different:
        raise UserError(
            f"The task, the annotations or the lists are not those of the exported split: {', '.join(different)} "
            f"{'differs' if len(different) == 1 else 'differ'}."
        )
    write_json(folder / MANIFEST, msgspec.to_builtins(expected))
    return expected
