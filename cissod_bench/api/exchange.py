"""Splits in the forms of other code bases: export and import."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cissod_bench.api.paths import AnyPath, optional, some_paths
from cissod_bench.api.splits import image_bar, reader

if TYPE_CHECKING:
    from cissod_bench.splits.make import Made


def export_split(
    folders: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    *,
    form: str = "ids",
    annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    progress: bool = False,
) -> list[str]:
    """Write a split for another code base: its lists of images, and the labels that may be trained on.

    Args:
        folders: split folder; "unbiased-teacher" takes several.
        out: folder to create.
        form: "ids", "unbiased-teacher" or "yolo", see `splits/export.py`.
        annotations: training annotations, whose order defines the positions of "unbiased-teacher".
        images: folder of the training images, which "yolo" links.
        progress: show a bar on standard error while annotations are read.

    Returns:
        What to know about the export, as sentences.

    Raises:
        UserError: no split, one that the form cannot hold, or `out` exists.

    Examples:
        >>> import cissod_bench as cb
        >>> notes = cb.export_split("splits/shapes", "lists")
        >>> notes[0].partition(",")[0]
        'Train on the labels of labeled.json alone'
    """
    from cissod_bench.splits.export import export_splits
    from cissod_bench.splits.folder import load_split
    from cissod_bench.tasks.registry import dataset_of

    splits = [load_split(folder) for folder in some_paths(folders)]
    columns = None
    if annotations is not None and form == "unbiased-teacher":
        columns = reader(dataset_of(splits[0].task), progress=progress)(Path(annotations))[0]
    return export_splits(splits, Path(out), form, columns=columns, images=optional(images))


def import_split(
    task: AnyPath,
    ids: AnyPath,
    out: AnyPath,
    *,
    annotations: AnyPath | None = None,
    minority_ids: AnyPath | None = None,
    percentage: str | None = None,
    list_seed: str | None = None,
    images: AnyPath | None = None,
    force: bool = False,
    plot: bool = True,
    progress: bool = False,
) -> "Made":
    """Make a split from the labelled images of another one: an export, or a published list.

    An export gives the exported split, with the same digest. Of any other list, every object in the listed images is
    labelled, unless `minority_ids` names D_s: then minority objects become hidden in all other images.

    Args:
        task: a built-in task, or a task file (.toml).
        ids: folder of an export, or a list of labelled images: ids, paths, a COCO file or Unbiased Teacher's JSON.
        out: split folder to create.
        annotations: training annotations in COCO form. Default: those of a task file; none for tasks whose data the
            package makes.
        minority_ids: list of the images of D_s.
        percentage: which of the lists in Unbiased Teacher's JSON.
        list_seed: the same.
        images: folder of the training images, to check that every image is there.
        force: replace another split that lies there.
        plot: also plot the class distribution.
        progress: show bars on standard error.

    Raises:
        UserError: a list that does not fit the annotations, or `out` holds something else.

    Examples:
        >>> import cissod_bench as cb
        >>> made = cb.import_split("shapes", "lists", "splits/again", plot=False)
        >>> made.manifest.digest == cb.load_split("splits/shapes").digest
        True
    """
    from cissod_bench.splits import interop
    from cissod_bench.tasks.registry import get_task

    chosen = get_task(task)
    lists = interop.find_lists(Path(ids), optional(minority_ids), percentage, list_seed)
    with image_bar(progress and chosen.files is None) as update:
        return interop.import_split(
            chosen,
            lists,
            Path(out),
            reader(chosen.dataset, progress=progress),
            annotations=optional(annotations),
            percentage=percentage,
            seed=list_seed,
            images=optional(images),
            progress=update,
            force=force,
            plot=plot,
        )
