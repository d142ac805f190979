"""From a task and its annotations to split folders: read the sources, plan, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cissod_bench.coco.columns import Columns
from cissod_bench.coco.reader import Read, SourceFile, no_garbage_collection, read_coco, read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import write_json
from cissod_bench.splits import folder as manifest
from cissod_bench.splits.folder import (
    Manifest,
    existing_digest,
    load_split,
    read_manifest,
    statistics_of,
)
from cissod_bench.splits.images import check_images, refuse_shared
from cissod_bench.splits.plan import Plan, Variant, plan_split
from cissod_bench.splits.restore import restore_manifest
from cissod_bench.splits.select import Selection
from cissod_bench.splits.sources import read_sources
from cissod_bench.splits.staging import staged_split
from cissod_bench.splits.unlabeled_folder import Progress, read_unlabeled
from cissod_bench.splits.write import write_labeled, write_unlabeled
from cissod_bench.tasks.records import Task


@dataclass(frozen=True)
class Made:
    """A finished split: its folder, manifest and statistics, and whether the folder held it before."""

    folder: Path
    manifest: Manifest
    statistics: Mapping[str, Any]
    unchanged: bool


def make_splits(
    task: Task,
    annotations: Path,
    folders: Sequence[tuple[Path, Variant]],
    *,
    majority_annotations: Path | None = None,
    images: Path | None = None,
    validation: tuple[Path, Path] | None = None,
    read: Read = read_coco,
    given: Callable[[Columns], Selection] | None = None,
    expected: Manifest | None = None,
    force: bool = False,
    plot: bool = False,
    progress: Progress | None = None,
) -> list[Made]:
    """Make splits of a task from annotation files that are read once, and write their folders.

    Args:
        task: which classes there are, how to select.
        annotations: training annotations in COCO form.
        folders: the folder of each split and which split it is.
        majority_annotations: annotations that D_m comes from, where they are another data set.
        images: folder of the training images; if given, every image must be there.
        validation: annotations and image folder of the task's validation data; with `images`, a file that both have is
            refused.
        read: reads an annotation file.
        given: returns labelled images that were selected elsewhere, given the annotations; default: select them.
        expected: the split that these images are expected to make, which takes the place of one of given images.
        force: replace other splits that lie in these folders.
        plot: also plot the distribution of the classes.
        progress: called with the number of images read so far from folders without annotations, and the total.

    Raises:
        UserError: the annotations cannot be used, lack a class of the task, images are missing, or a folder holds
            something else.
    """
    sources, files = read_sources(task, annotations, majority_annotations, read, images=images)
    if images is not None and validation is not None:
        held_out = read_columns(validation[0]).file_names.tolist()
        refuse_shared(images, sources.train.file_names.tolist(), validation[1], held_out, str(validation[0]))
    sources = replace(sources, folder=read_unlabeled(task, sources.train, progress))
    made = []
    for folder, variant in folders:
        plan = plan_split(task, sources, variant, given(sources.train) if given else None)
        if images is not None:
            parts = [*plan.labeled, plan.unlabeled, *([plan.validation] if plan.validation else [])]
            check_images(images, parts, str(annotations))
        before = existing_digest(folder)
        with staged_split(folder, replace=force) as staging:
            sealed = write_plan(staging, plan, files, expected=expected, plot=plot)
        made.append(Made(folder, sealed, plan.statistics, unchanged=before == sealed.digest and not force))
    return made


def make_embedded_split(
    task: Task,
    folder: Path,
    variant: Variant,
    *,
    given: Callable[[Columns], Selection] | None = None,
    expected: Manifest | None = None,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
    plot: bool = False,
) -> Made:
    """Make the data of an embedded task in `folder/data`, and its split.

    Args:
        task: `shapes` or `shapes-lt`.
        folder: folder to make.
        variant: which split; the data is the same for every seed.
        given, expected: see `make_splits`.
        progress: called with the number of images made so far and the total.
        force: replace another split.
        plot: also plot the distribution of the classes.

    Raises:
        UserError: `folder` holds something else.
    """
    from cissod_bench.synthetic.shapes import generate

    if not force and given is None and (same := _same_embedded(task, folder, variant)):
        return Made(folder, same, statistics_of(folder), unchanged=True)
    with staged_split(folder, replace=force) as staging:
        generate(task.name, staging / manifest.DATA, 0, progress=progress)
        sources, files = read_sources(task, staging / manifest.DATA / "train.json", None, read_coco)
        plan = plan_split(task, sources, variant, given(sources.train) if given else None)
        sealed = write_plan(staging, plan, files, expected=expected, plot=plot)
    return Made(folder, sealed, plan.statistics, unchanged=False)


def _same_embedded(task: Task, folder: Path, variant: Variant) -> Manifest | None:
    """The manifest of the split that would be made if the folder holds it, undamaged; so its data is not made again."""
    if existing_digest(folder) is None:
        return None
    found = read_manifest(folder)
    fraction = variant.budgeted(task).selection.fraction
    wanted = (task.name, task.version, variant.seed, fraction)
    if (found.task, found.protocol, found.seed, found.options.get("fraction")) != wanted:
        raise UserError(f"{folder} already holds another split. Choose another folder, or replace it with --force.")
    load_split(folder)
    return found


def write_plan(
    folder: Path, plan: Plan, files: Sequence[SourceFile], *, expected: Manifest | None = None, plot: bool = False
) -> Manifest:
    """Write all files of a split into an empty folder, the manifest last.

    Raises:
        UserError: it is not the expected split.
    """
    categories = plan.labeled[0].columns.categories
    with no_garbage_collection():
        write_labeled(folder / manifest.LABELED, plan.labeled, categories)
        write_unlabeled(folder / manifest.UNLABELED, plan.all_unlabeled, categories)
        if plan.validation is not None:
            write_labeled(folder / manifest.VALIDATION, [plan.validation], categories)
        for role, name in manifest.ID_FILES.items():
            if role != "validation" or plan.validation is not None:
                manifest.write_ids(folder / name, plan.ids[role])
    write_json(folder / manifest.STATISTICS, plan.statistics)
    if plot:
        from cissod_bench.splits.plot import plot_split, write_figure

        figure = plot_split(plan.statistics, f"{plan.record.task}, seed {plan.record.seed}")
        for name in manifest.PLOTS:
            write_figure(figure, folder / name)
    read = [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in files]
    write_json(folder / manifest.SOURCE, read)
    sealed = manifest.seal_split(folder, plan.record)
    return sealed if expected is None else restore_manifest(folder, sealed, expected)
