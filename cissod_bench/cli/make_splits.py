"""`make-splits`: draw the labelled and unlabelled images of a task, once, for every run."""

from pathlib import Path
from typing import Annotated

import typer


def make_splits(
    task: Annotated[str, typer.Option(help="Name of a built-in task, or path of a task file (.toml).")],
    out: Annotated[Path, typer.Option(help="Folder to make. One that holds another split is refused.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Training annotations, COCO form, plain, .gz or .xz. Default: under the data root."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw, not of a training run.")] = 0,
    data_root: Annotated[
        Path, typer.Option(envvar="CISSOD_DATA_ROOT", help="Folder under which a task's data is looked for.")
    ] = Path("data"),
    force: Annotated[bool, typer.Option("--force", help="Replace another split in the output folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print digest and counts as JSON, nothing else.")] = False,
) -> None:
    """Draw the split of a task and write it: labelled and unlabelled images, ids, digests, statistics.

    The same task, annotations and seed give the same bytes on every machine, whatever the order of the file.

    Example: cissod-bench make-splits --task coco-split1 --annotations instances_train2017.json --out splits/coco1
    """
    import msgspec

    from cissod_bench.splits.make import make_split
    from cissod_bench.splits.progress import reading_bar
    from cissod_bench.splits.sources import annotation_file
    from cissod_bench.tasks import get_task

    chosen = get_task(task)
    path = annotation_file(chosen, annotations, data_root)
    with reading_bar(path, visible=not as_json) as progress:
        made = make_split(chosen, path, out, seed=seed, force=force, progress=progress)
    if as_json:
        content = {"out": str(out), "digest": made.manifest.digest, "unchanged": made.unchanged}
        typer.echo(msgspec.json.encode({**content, "counts": made.manifest.counts}).decode())
        return
    counts = made.manifest.counts
    typer.echo(
        f"{out}: {'unchanged' if made.unchanged else 'written'}, digest {made.manifest.digest[:12]}\n"
        f"  labelled   {counts['labeled_images']:>9,} images ({counts['labeled_boxes']:,} boxes), "
        f"of which D_s {counts['minority_images']:,}\n"
        f"  unlabelled {counts['unlabeled_images']:>9,} images"
    )
