"""`splits`: look at, check, compare, export and import splits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cissod_bench.cli.make_splits import print_made

app = typer.Typer(help="Look at, check, compare, export and import splits.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Split folder, as `make-splits` writes it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else.")]


@app.command()
def verify(
    folder: Folder,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the training images: check that all are there.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Validation annotations: check that none of their images is trained on.")
    ] = None,
    validation_images: Annotated[
        Path | None,
        typer.Option(help="With --images: folder of the validation images, to tell files of one name apart."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Training annotations (coco-o365: of Objects365): check that nothing of them is left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every promise of a split: digests, disjoint parts, floors, no hidden label. A broken one: exit code 2."""
    from cissod_bench.api.splits import reader
    from cissod_bench.errors import UserError
    from cissod_bench.splits.folder import read_manifest
    from cissod_bench.splits.verify import verify_split
    from cissod_bench.tasks.registry import dataset_of

    columns = reader(dataset_of(read_manifest(folder).task), progress=True)(annotations)[0] if annotations else None
    checks = verify_split(
        folder, images=images, validation=validation, validation_images=validation_images, annotations=columns
    )
    if as_json:
        _print_json([{"promise": check.promise, "problem": check.problem} for check in checks])
    else:
        for check in checks:
            typer.echo(f"{'FAILED' if check.problem else 'ok':6}  {check.promise}" + f"  {check.problem}".rstrip())
    broken = [check.promise for check in checks if check.problem]
    if broken:
        raise UserError(f"{folder}: {len(broken)} of {len(checks)} checks failed: {'; '.join(broken)}.")


@app.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """Counts per group and class, imbalance ratio, what minority classes occur with, health of the annotations."""
    from cissod_bench.splits.difference import co_occurrence
    from cissod_bench.splits.folder import load_split, statistics_of

    split = load_split(folder)
    statistics = statistics_of(folder)
    beside = co_occurrence(split)
    if as_json:
        _print_json({"digest": split.digest, "counts": dict(split.counts), "co_occurrence": beside, **statistics})
        return
    from cissod_bench.cli.show_split import print_split

    print_split(split, statistics, beside)


@app.command()
def diff(first: Folder, second: Folder, as_json: AsJson = False) -> None:
    """How two splits differ: settings, images, groups, labelled images per class."""
    from cissod_bench.splits.difference import difference
    from cissod_bench.splits.folder import load_split

    found = difference(load_split(first), load_split(second))
    if as_json:
        _print_json(found)
        return
    if found["same"]:
        typer.echo("The same split.")
        return
    for name, (one, other) in found["fields"].items():
        if name.endswith("content"):
            one, other = (str(value)[:12] for value in (one, other))
        typer.echo(f"{name:18} {one} -> {other}")
    for part, count in found["images"].items():
        typer.echo(
            f"{part:18} {count['first']:,} only in the first, {count['both']:,} in both, "
            f"{count['second']:,} only in the second"
        )
    for title, changed in (("other group", found["groups"]), ("labelled images", found["labeled_images"])):
        for name, (one, other) in changed.items():
            typer.echo(f"{title:18} {name}: {one} -> {other}")


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="Split folders, one panel each.")],
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .svg. Never overwritten.")],
) -> None:
    """Plot the original data against the labelled part, one panel a split (Fig. 4 of the paper with three splits)."""
    from cissod_bench.errors import UserError
    from cissod_bench.splits.folder import load_split, statistics_of
    from cissod_bench.splits.plot import plot_figure_4, write_figure

    if out.suffix not in (".png", ".svg"):
        raise UserError(f"{out}: the name must end in .png or .svg.")
    if out.exists():
        raise UserError(f"{out} exists already. Choose another name.")
    splits = [load_split(folder, verify=False) for folder in folders]
    write_figure(plot_figure_4([(split.task, statistics_of(split.folder)) for split in splits]), out)
    typer.echo(f"{out}: written")


@app.command()
def export(
    folders: Annotated[list[Path], typer.Argument(help="Split folders; several only for unbiased-teacher.")],
    out: Annotated[Path, typer.Option(help="File to write; for yolo a folder. Never overwritten.")],
    form: Annotated[str, typer.Option(help="ids, unbiased-teacher or yolo.")] = "ids",
    annotations: Annotated[
        Path | None, typer.Option(help="unbiased-teacher: the training annotations that positions count in.")
    ] = None,
    images: Annotated[str, typer.Option(help="yolo: folder put before each file name.")] = "",
) -> None:
    """Write a split as other code bases read it: plain ids, Unbiased Teacher's JSON, YOLO's image lists."""
    from cissod_bench.api.splits import reader
    from cissod_bench.errors import UserError, unknown_name
    from cissod_bench.splits import interop as exchange
    from cissod_bench.splits.folder import load_split
    from cissod_bench.tasks.registry import dataset_of

    if form not in exchange.FORMS:
        raise unknown_name("form", form, exchange.FORMS)
    if out.exists():
        raise UserError(f"{out} exists already. Choose another name.")
    splits = [load_split(folder) for folder in folders]
    if form == "unbiased-teacher":
        if annotations is None:
            raise UserError(
                "unbiased-teacher lists positions in the training annotations: give them with --annotations."
            )
        columns = reader(dataset_of(splits[0].task), progress=True)(annotations)[0]
        for percentage, seed in exchange.export_unbiased_teacher(splits, out, columns):
            typer.echo(f"DATALOADER.SUP_PERCENT {percentage} DATALOADER.RANDOM_DATA_SEED {seed}")
    elif len(splits) > 1:
        raise UserError(f"The form {form} holds one split; {len(splits)} are given.")
    elif form == "ids":
        exchange.export_ids(splits[0], out)
    else:
        exchange.export_yolo(splits[0], out, images)
    typer.echo(f"{out}: written")


@app.command("import")
def import_split(
    task: Annotated[str, typer.Option(help="Name of a built-in task, or path of a task file (.toml).")],
    annotations: Annotated[Path, typer.Option(help="Training annotations, COCO form.")],
    ids: Annotated[
        Path, typer.Option(help="Labelled images: ids, Unbiased Teacher's JSON, or paths of images as for YOLO.")
    ],
    out: Annotated[Path, typer.Option(help="Split folder to make.")],
    minority_ids: Annotated[
        Path | None, typer.Option(help="Those that are D_s, where minority objects of the others are hidden.")
    ] = None,
    percentage: Annotated[str | None, typer.Option(help="Which list of a JSON file.")] = None,
    list_seed: Annotated[
        str | None, typer.Option(help="Which list of a JSON file; the split takes the number as its seed.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the training images: check that every image is there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another split in the output folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a split from a list of labelled images drawn elsewhere, so that an existing protocol can be run here.

    Without --minority-ids every object in the listed images is annotated. All other images are unlabelled, but for
    those that the task holds out for validation.
    """
    from dataclasses import replace

    import numpy as np

    from cissod_bench.api.splits import reader
    from cissod_bench.coco.columns import Columns
    from cissod_bench.errors import UserError
    from cissod_bench.splits.interop import given_selection, read_ids
    from cissod_bench.splits.make import make_splits
    from cissod_bench.splits.plan import Variant
    from cissod_bench.splits.select import Selection
    from cissod_bench.tasks.registry import get_task

    chosen = get_task(task)
    if chosen.dataset == "objects365":
        raise UserError(f"Task {task} draws from two data sets; lists of ids for it cannot be imported.")
    if chosen.files is None:
        raise UserError(f"Task {task} makes its own images; lists of ids for it cannot be imported.")
    if minority_ids is None:
        chosen = replace(chosen, selection=replace(chosen.selection, minority_objects="keep"))

    def given(columns: Columns) -> Selection:
        labeled = read_ids(ids, columns, percentage=percentage, seed=list_seed)
        minority = read_ids(minority_ids, columns) if minority_ids else np.empty(0, np.int64)
        return given_selection(labeled, minority, columns.num_images)

    variant = Variant(int(list_seed) if list_seed and list_seed.isdecimal() else 0)
    made = make_splits(
        chosen,
        annotations,
        [(out, variant)],
        images=images,
        read=reader(chosen.dataset, progress=True),
        given=given,
        force=force,
        plot=True,
    )
    print_made(made, as_json=as_json)


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value))
