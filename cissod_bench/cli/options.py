"""Option types that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root",
        envvar="CISSOD_DATA_ROOT",
        help="Folder that holds the data sets and the splits (coco/, lvis/, objects365/, splits/).",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]


def split_folder(data_root: Path, task: str, seed: int) -> Path:
    """Where a built-in task's split lies unless the user says otherwise."""
    return data_root / "splits" / task / f"seed-{seed}"
