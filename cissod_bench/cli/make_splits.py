"""`make-splits`: select the labelled and unlabelled images of a task, once for all runs."""

import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.options import DataRoot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cissod_bench.splits.make import Made


SPLIT, DATA, OUTPUT = "What is split", "Data", "Output"


def make_splits(
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "--from-task",
            help="Name of a built-in task, or path of a task file (.toml).",
            rich_help_panel=SPLIT,
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to create; another split in it is refused. Default: DATA_ROOT/splits/TASK/seed-SEED, where "
            "`run` looks for it.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Training annotations in COCO format (.json, .gz or .xz). Default: under the data root.",
            rich_help_panel=DATA,
        ),
    ] = None,
    majority_annotations: Annotated[
        Path | None,
        typer.Option(help="COCO annotations, for coco-o365 only. Default: under the data root.", rich_help_panel=DATA),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the training images; checks that every image exists.", rich_help_panel=DATA),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            "--seed",
            "--seeds",
            help="Seed of the selection. Several, as in 0,1,2 or 0-4, create OUT/seed-0, ...",
            rich_help_panel=SPLIT,
        ),
    ] = "0",
    folds: Annotated[
        int, typer.Option(min=0, help="Number of cross-validation folds: OUT/fold-0, ...", rich_help_panel=SPLIT)
    ] = 0,
    fractions: Annotated[
        str | None,
        typer.Option(
            "--fraction",
            help="Labelled fraction instead of the task's. Several, as in 0.01,0.05,0.1, create nested splits in "
            "OUT/fraction-0.01, ...",
            show_default=False,
            rich_help_panel=SPLIT,
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace another split in the output folder.", rich_help_panel=OUTPUT)
    ] = False,
    template: Annotated[
        Path | None,
        typer.Option(
            help="Write a commented task file to fill in, then exit.", show_default=False, rich_help_panel=OUTPUT
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Cache folder for large annotation files.", show_default="~/.cache/cissod-bench", rich_help_panel=DATA
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Read every file anew and cache nothing.", rich_help_panel=DATA)
    ] = False,
    plot: Annotated[bool, typer.Option(help="Plot the class distribution.", rich_help_panel=OUTPUT)] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print digests and counts as JSON only.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Select the labelled and unlabelled images of a task.

    Writes the split with ids, digests and statistics.
    The same task, annotations and seed give the same bytes on every machine, in whatever order the file lists them.

    Example: cissod-bench make-splits --task coco-split1 --annotations instances_train2017.json --out splits/coco1
    """
    # Set before NumPy loads: on virtual machines huge pages cost more time than small ones (6 % for Objects365).
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    from cissod_bench import api
    from cissod_bench.errors import UserError

    if template is not None:
        _write_template(template)
        return
    if not task:
        raise UserError("make-splits needs --task, or --template FILE to write a task file to fill in.")
    made = api.make_splits(
        task,
        out,
        seeds=_numbers(seeds),
        folds=folds,
        fractions=None if fractions is None else _fractions(fractions),
        annotations=annotations,
        majority_annotations=majority_annotations,
        images=images,
        data_root=data_root,
        cache=False if no_cache else cache or True,
        force=force,
        plot=plot,
        progress=True,
    )
    print_made(made, as_json=as_json)


def _fractions(text: str) -> list[float]:
    """Parse a list of fractions such as 0.01,0.05."""
    from cissod_bench.errors import UserError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--fraction {text}: write a number, or a list such as 0.01,0.05,0.1.") from None


def _numbers(seeds: str) -> list[int]:
    """Parse a list of seeds such as 0,1,2 or 0-4."""
    from cissod_bench.errors import UserError

    numbers: list[int] = []
    for part in seeds.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise UserError(f"--seed {seeds}: write a whole number, a list such as 0,1,2 or a range such as 0-4.")
        if dash and int(last) < int(first):
            raise UserError(f"--seed {seeds}: a range must ascend; write {last.strip()}-{first.strip()}.")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def _write_template(path: Path) -> None:
    from cissod_bench.errors import UserError
    from cissod_bench.io import write_text
    from cissod_bench.tasks.task_file import TEMPLATE

    if path.exists():
        raise UserError(f"{path} exists already. Choose another name for the template.")
    write_text(path, TEMPLATE)
    say(f"{path}: fill it in, then run `cissod-bench make-splits --task {quote(str(path))}`.")


def _of_folders(source: "Mapping[str, Any]") -> str:
    """How many images come from folders without annotations, and how many of those were left out."""
    if "folder_images" not in source:
        return ""
    left_out = source["folder_left_out"]
    copies = f"; {left_out:,} others there are training or validation images and left out" if left_out else ""
    return f", {source['folder_images']:,} of them from folders{copies}"


def print_made(made: "list[Made]", *, as_json: bool) -> None:
    """Print where splits are, their digests and counts, and remarks for whoever uses them."""
    import json

    from cissod_bench.splits.statistics import remarks
    from cissod_bench.tasks.official import remark, train_sizes, unofficial

    if as_json:
        found = [
            {
                "out": str(split.folder),
                "digest": split.manifest.digest,
                "unchanged": split.unchanged,
                "counts": split.manifest.counts,
                "health": split.statistics["health"],
                "unmet_floors": split.statistics["unmet_floors"],
                "unofficial": unofficial(split.manifest.task, train_sizes(split.manifest.source)),
            }
            for split in made
        ]
        say(json.dumps(found if len(found) > 1 else found[0]))
        return
    for split in made:
        counts = split.manifest.counts
        other_data = remark(split.manifest.task, train_sizes(split.manifest.source))
        say(
            f"{split.folder}: {'unchanged' if split.unchanged else 'written'}, digest {split.manifest.digest[:12]}\n"
            f"  labelled   {counts['labeled_images']:>9,} images with {counts['labeled_boxes']:,} boxes "
            f"(D_m {counts['majority_images']:,}, D_s {counts['minority_images']:,})\n"
            f"  unlabelled {counts['unlabeled_images']:>9,} images{_of_folders(split.manifest.source)}"
            + (f"\n  validation {counts['validation_images']:>9,} images" if counts["validation_images"] else "")
            + "".join(f"\n  {line}" for line in [*remarks(split.statistics), *filter(None, [other_data])])
        )
