"""`splits`: show, verify, compare, export and import splits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.make_splits import print_made

app = typer.Typer(help="Show, verify, compare, export and import splits.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Split folder written by `make-splits`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command()
def verify(
    folder: Folder,
    images: Annotated[Path | None, typer.Option(help="Folder of the training images; checks that all exist.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Validation annotations; checks that no validation image is in the split.")
    ] = None,
    validation_images: Annotated[
        Path | None,
        typer.Option(help="With --images: folder of the validation images, to tell files of one name apart."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Training annotations (Objects365's for coco-o365); checks that the split omits nothing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check what a split promises: digests, disjoint parts, floors, no hidden label. Exit code 2 if a check fails."""
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
            say(f"{'FAILED' if check.problem else 'ok':6}  {check.promise}" + f"  {check.problem}".rstrip())
    broken = [check.promise for check in checks if check.problem]
    if broken:
        raise UserError(f"{folder}: {len(broken)} of {len(checks)} checks failed: {'; '.join(broken)}.")


@app.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """Show counts per group and class, imbalance ratio, co-occurring classes and annotation problems."""
    from cissod_bench.splits.difference import co_occurrence
    from cissod_bench.splits.folder import load_split, statistics_of

    split = load_split(folder)
    statistics = statistics_of(folder)
    together = co_occurrence(split)
    if as_json:
        _print_json({"digest": split.digest, "counts": dict(split.counts), "co_occurrence": together, **statistics})
        return
    from cissod_bench.cli.show_split import print_split
    from cissod_bench.errors import UserError
    from cissod_bench.splits.folder import STATISTICS

    try:
        print_split(split, statistics, together)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / STATISTICS} lacks something, or has it in another form ({error!r}).") from None


@app.command()
def diff(first: Folder, second: Folder, as_json: AsJson = False) -> None:
    """Show how two splits differ: settings, images, groups, labelled images per class."""
    from cissod_bench.splits.difference import difference
    from cissod_bench.splits.folder import load_split

    found = difference(load_split(first), load_split(second))
    if as_json:
        _print_json(found)
        return
    if found["same"]:
        say("The same split.")
        return
    for name, (one, other) in found["fields"].items():
        if name.endswith("content"):
            one, other = (str(value)[:12] for value in (one, other))
        say(f"{name:18} {one} -> {other}")
    for part, count in found["images"].items():
        say(
            f"{part:18} {count['first']:,} only in the first, {count['both']:,} in both, "
            f"{count['second']:,} only in the second"
        )
    for title, changed in (("other group", found["groups"]), ("labelled images", found["labeled_images"])):
        for name, (one, other) in changed.items():
            say(f"{title:18} {name}: {one} -> {other}")


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="Split folders, one panel for each.")],
    out: Annotated[Path, typer.Option(help="File to write, .png or .svg. It is never overwritten.")],
) -> None:
    """Plot the original data against the labelled part, one panel per split (Fig. 4 of the paper has three)."""
    from cissod_bench.errors import UserError
    from cissod_bench.splits.folder import load_split, statistics_of
    from cissod_bench.splits.plot import plot_figure_4, write_figure

    if out.suffix not in (".png", ".svg"):
        raise UserError(f"{out}: the name must end in .png or .svg.")
    if out.exists():
        raise UserError(f"{out} exists already. Choose another name.")
    splits = [load_split(folder, verify=False) for folder in folders]
    write_figure(plot_figure_4([(split.task, statistics_of(split.folder)) for split in splits]), out)
    say(f"{out}: written")


@app.command()
def export(
    folders: Annotated[list[Path], typer.Argument(help="Split folders. Only unbiased-teacher takes several.")],
    out: Annotated[Path, typer.Option(help="File to write (yolo: folder). It is never overwritten.")],
    form: Annotated[str, typer.Option(help="Format: ids, unbiased-teacher or yolo.")] = "ids",
    annotations: Annotated[
        Path | None, typer.Option(help="unbiased-teacher: training annotations, whose order defines the positions.")
    ] = None,
    images: Annotated[str, typer.Option(help="yolo: folder to put in front of each file name.")] = "",
) -> None:
    """Write a split for other code bases: plain ids, Unbiased Teacher's JSON or YOLO's image lists."""
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
                "unbiased-teacher lists positions in the training annotations. Give them with --annotations."
            )
        columns = reader(dataset_of(splits[0].task), progress=True)(annotations)[0]
        for percentage, seed in exchange.export_unbiased_teacher(splits, out, columns):
            say(f"DATALOADER.SUP_PERCENT {percentage} DATALOADER.RANDOM_DATA_SEED {seed}")
    elif len(splits) > 1:
        raise UserError(f"--form {form} takes one split, but {len(splits)} are given.")
    elif form == "ids":
        exchange.export_ids(splits[0], out)
    else:
        exchange.export_yolo(splits[0], out, images)
    say(f"{out}: written")


@app.command("import")
def import_split(
    task: Annotated[str, typer.Option(help="A built-in task (`list tasks`) or a task file (.toml).")],
    annotations: Annotated[Path, typer.Option(help="Training annotations in COCO format.")],
    ids: Annotated[
        Path, typer.Option(help="Labelled images: ids, Unbiased Teacher's JSON, or YOLO's list of image paths.")
    ],
    out: Annotated[Path, typer.Option(help="Split folder to create.")],
    minority_ids: Annotated[
        Path | None, typer.Option(help="Images of D_s. In all others minority objects become hidden.")
    ] = None,
    percentage: Annotated[str | None, typer.Option(help="Which percentage of the JSON file to use.")] = None,
    list_seed: Annotated[
        str | None, typer.Option(help="Which seed of the JSON file to use; it also becomes the seed of the split.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the training images; checks that every image exists.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another split in the output folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a split from a published list of labelled images, to run an existing protocol here.

    Without --minority-ids every object in the listed images is labelled. All other images are unlabelled, except those
    that the task reserves for validation.
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
        raise UserError(f"Task {task} uses two data sets; lists of ids cannot be imported for it.")
    if chosen.files is None:
        raise UserError(f"Task {task} generates its own images; lists of ids cannot be imported for it.")
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

    say(json.dumps(value))
