"""`splits`: show, verify, compare, export and import splits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.layout.panels import PanelApp
from cissod_bench.cli.make_splits import print_made

app = PanelApp(help="Show, verify, compare, export and import splits.")

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
    """Check what a split promises.

    Digests, disjoint parts, floors, no hidden label. Exit code 2 if a check fails.
    """
    from cissod_bench import api
    from cissod_bench.errors import UserError

    checks = api.verify_split(
        folder,
        images=images,
        validation=validation,
        validation_images=validation_images,
        annotations=annotations,
        progress=True,
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
    """Show the counts, imbalance and problems of a split."""
    from cissod_bench import api

    found = api.describe_split(folder)
    if as_json:
        _print_json(found)
        return
    from cissod_bench.cli.show_split import print_split
    from cissod_bench.errors import UserError

    try:
        print_split(api.load_split(folder, verify=False), found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: the statistics lack something, or have it in another form ({error!r}).") from None


@app.command()
def diff(first: Folder, second: Folder, as_json: AsJson = False) -> None:
    """Show how two splits differ.

    Settings, images, groups, labelled images per class.
    """
    from cissod_bench import api

    found = api.compare_splits(first, second)
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
    out: Annotated[Path, typer.Option(help="File to write, .png, .svg or .pdf. It is never overwritten.")],
) -> None:
    """Plot the original data against the labelled part.

    One panel per split; Fig. 4 of the paper has three.
    """
    from cissod_bench import api

    api.plot_splits(folders, out)
    say(f"{out}: written")


@app.command()
def export(
    folders: Annotated[list[Path], typer.Argument(help="Split folders. Only unbiased-teacher takes several.")],
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    form: Annotated[str, typer.Option(help="Format: ids, unbiased-teacher or yolo.")] = "ids",
    annotations: Annotated[
        Path | None, typer.Option(help="unbiased-teacher: training annotations, whose order defines the positions.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="yolo: folder of the training images, to link.")] = None,
) -> None:
    """Write a split for other code bases.

    As lists of images in plain ids, Unbiased Teacher's JSON or YOLO's files. The labels of D_l come along, since the
    full annotations must not be read. `splits import` makes the same split of an export.
    """
    from cissod_bench import api

    notes = api.export_split(folders, out, form=form, annotations=annotations, images=images, progress=True)
    say("\n".join([*notes, f"{out}: written"]))


@app.command("import")
def import_split(
    task: Annotated[str, typer.Option(help="A built-in task (`list tasks`) or a task file (.toml).")],
    ids: Annotated[
        Path,
        typer.Option(
            help="Folder of an export, or labelled images: ids, image paths, a COCO file or Unbiased Teacher's JSON."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Split folder to create.")],
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Training annotations in COCO format. Default: a task file's. None where the task makes its data."
        ),
    ] = None,
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
    """Make a split from an export, or from a published list.

    An export gives the very split that was exported. Of any other list, every object in the listed images is labelled
    unless --minority-ids is given. All other images are unlabelled, except those that the task reserves for validation.
    """
    from cissod_bench import api

    made = api.import_split(
        task,
        ids,
        out,
        annotations=annotations,
        minority_ids=minority_ids,
        percentage=percentage,
        list_seed=list_seed,
        images=images,
        force=force,
        progress=True,
    )
    print_made([made], as_json=as_json)


def _print_json(value: Any) -> None:
    import json

    say(json.dumps(value))
