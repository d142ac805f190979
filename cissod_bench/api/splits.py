"""Splits: make, load, check and compare."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.api.paths import AnyPath, new_picture, optional, some_paths
from cissod_bench.errors import UserError

if TYPE_CHECKING:
    from cissod_bench.splits.folder import Split
    from cissod_bench.splits.make import Made
    from cissod_bench.splits.plan import Variant
    from cissod_bench.splits.verify import Check
    from cissod_bench.tasks.records import Task


def make_splits(
    task: AnyPath,
    out: AnyPath | None = None,
    *,
    seeds: int | Sequence[int] = 0,
    folds: int = 0,
    fractions: float | Sequence[float] | None = None,
    annotations: AnyPath | None = None,
    majority_annotations: AnyPath | None = None,
    images: AnyPath | None = None,
    data_root: AnyPath = "data",
    cache: AnyPath | bool = True,
    force: bool = False,
    plot: bool = True,
    progress: bool = False,
) -> "list[Made]":
    """Select the labelled and unlabelled images of a task, and write them as split folders.

    The same task, annotations and seed give the same bytes on every machine, in whatever order the file lists them.

    Args:
        task: a built-in task, or a task file (.toml).
        out: folder to create; several seeds create out/seed-0, ..., folds out/fold-0, ... Default: where `run` looks
            for it, DATA_ROOT/splits/TASK/seed-0 for seed 0.
        seeds: seed of the split, or several.
        folds: number of cross-validation folds; 0 for none.
        fractions: labelled fraction instead of the task's, or several, for nested splits in out/fraction-0.01, ...
        annotations: training annotations in COCO form, plain, .gz or .xz. Default: under `data_root`.
        majority_annotations: of coco-o365, the COCO annotations. Default: under `data_root`.
        images: folder of the training images, to check that every image is there.
        data_root: folder that the task's paths are relative to.
        cache: where to keep what is read from large files; False for nowhere, True for ~/.cache/cissod-bench.
        force: replace another split that lies there.
        plot: also plot the class distribution.
        progress: show bars on standard error.

    Raises:
        UserError: the annotations cannot be used, or a folder holds something else.

    Examples:
        >>> import cissod_bench as cb
        >>> (made,) = cb.make_splits("shapes", "splits/shapes", plot=False)
        >>> made.manifest.task
        'shapes'
    """
    from cissod_bench.splits import make, sources
    from cissod_bench.tasks.registry import get_task

    chosen, root = get_task(task), Path(data_root)
    numbers = [seeds] if isinstance(seeds, int | str) else list(seeds)
    budgets = [fractions] if fractions is None or isinstance(fractions, float | int) else list(fractions)
    variants = _variants(numbers, folds, budgets)
    base = _usual_folder(root, chosen.name, [variant for _, variant in variants]) if out is None else Path(out)
    folders = [(base / name, variant) for name, variant in variants]
    if chosen.files is None and annotations is None:
        with image_bar(progress) as update:
            return [
                make.make_embedded_split(chosen, folder, variant, progress=update, force=force, plot=plot)
                for folder, variant in folders
            ]
    if images is None and annotations is None and chosen.dataset == "custom" and chosen.files is not None:
        images = chosen.files.train_images
    with image_bar(progress, "Reading sizes") as update:
        return make.make_splits(
            chosen,
            sources.annotation_file(chosen, optional(annotations), root),
            folders,
            majority_annotations=sources.majority_file(chosen, optional(majority_annotations), root),
            images=optional(images),
            validation=_validation(chosen),
            read=reader(chosen.dataset, cache, progress=progress),
            force=force,
            plot=plot,
            progress=update,
        )


def _usual_folder(data_root: Path, task: str, variants: "Sequence[Variant]") -> Path:
    """Where `run` looks for the splits of a task.

    Raises:
        UserError: the name of a folder would not say which fraction is labelled, or which seed folds are of.
    """
    from cissod_bench.training.spec import default_split

    folder = default_split(data_root, task)
    fractions, seeds = {variant.fraction for variant in variants}, {variant.seed for variant in variants}
    if len(fractions) == 1 and None not in fractions:
        raise UserError(f"--fraction: give --out as well; {folder} is for the split with the task's own fraction.")
    if variants[0].folds and seeds != {0}:
        raise UserError(f"--folds with --seed: give --out as well; {folder.parent} is for the folds of seed 0.")
    if len(variants) > 1 or variants[0].folds:
        return folder.parent
    return folder.with_name(f"seed-{variants[0].seed}")


def _validation(task: "Task") -> tuple[Path, Path] | None:
    """Annotations and image folder of a custom task's validation data, if they are there."""
    if task.dataset != "custom" or task.files is None or not task.files.val_annotations:
        return None
    files = Path(task.files.val_annotations), Path(task.files.val_images)
    return files if all(path.exists() for path in files) else None


def _variants(
    seeds: Sequence[int], folds: int, fractions: Sequence[float | None] = (None,)
) -> "list[tuple[str, Variant]]":
    """Subfolder and variant of every split; a single split needs no subfolder."""
    from cissod_bench.splits.plan import Variant

    if not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"--seed {','.join(map(str, seeds))}: seeds are whole numbers from 0 on.")
    if type(folds) is not int or folds < 0:
        raise UserError(f"--folds {folds}: give the number of folds, or 0 for none.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seed {','.join(map(str, seeds))}: seeds must be different.")
    if folds == 1:
        raise UserError("--folds 1 would leave no image for training. Use at least 2.")
    for fraction in fractions:
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"--fraction {fraction:g}: a labelled fraction is above 0 and at most 1.")
    if not fractions or len(set(fractions)) < len(fractions):
        raise UserError(f"--fraction {','.join(map(str, fractions))}: fractions must be different.")
    found = []
    for fraction, seed, fold in itertools.product(fractions, seeds, range(folds) if folds else (None,)):
        parts = [
            *([f"fraction-{fraction:.15g}"] if len(fractions) > 1 else []),
            *([f"seed-{seed}"] if len(seeds) > 1 else []),
            *([f"fold-{fold}"] if fold is not None else []),
        ]
        found.append(("/".join(parts), Variant(seed, folds, fold or 0, fraction)))
    return found


def reader(dataset: str, cache: AnyPath | bool = True, *, progress: bool = False) -> Callable[[Path], Any]:
    """A function that reads an annotation file, with the quirks of its data set (`coco/reader.py`).

    Args:
        dataset: `Task.dataset`.
        cache: see `make_splits`.
        progress: whether to show progress on standard error.
    """
    from cissod_bench.coco.cache import cached, default_folder
    from cissod_bench.coco.reader import read_coco
    from cissod_bench.coco.reading_progress import read_with_bar

    def read(path: Path) -> Any:
        return read_coco(path, file_names="coco_url" if dataset == "lvis" else "file_name")

    found = read_with_bar(dataset) if progress else read
    if cache is False:
        return found
    return cached(found, default_folder() if cache is True else Path(cache), "lvis" if dataset == "lvis" else "")


@contextlib.contextmanager
def image_bar(progress: bool, title: str = "Making images") -> Iterator[Callable[[int, int], None] | None]:
    """What shows how many images are done, where `progress` is wanted."""
    from cissod_bench.coco.reading_progress import counting_bar

    with counting_bar(title) if progress else contextlib.nullcontext() as update:
        yield update


def load_split(folder: AnyPath, *, verify: bool = True) -> "Split":
    """Read a split folder.

    Args:
        folder: a folder that `make_splits` wrote.
        verify: compare the SHA-256 of every file with the manifest.

    Raises:
        UserError: no split is found, or it was changed after it was written.

    Examples:
        >>> import cissod_bench as cb
        >>> split = cb.load_split("splits/shapes")
        >>> len(split.labeled_ids) == split.counts["labeled_images"]
        True
    """
    from cissod_bench.splits import folder as folders

    return folders.load_split(Path(folder), verify=verify)


def describe_split(folder: AnyPath) -> dict[str, Any]:
    """What a split holds: digest, counts per group and class, imbalance ratio, annotation problems.

    Args:
        folder: split folder.

    Returns:
        `digest`, `counts`, `co_occurrence` (what occurs with the classes of the rarest group), and the content of
        `statistics.json`.

    Raises:
        UserError: no split is found, or it was changed after it was written.

    Examples:
        >>> import cissod_bench as cb
        >>> found = cb.describe_split("splits/shapes")
        >>> sorted(found["groups"])
        ['maj', 'min']
    """
    from cissod_bench.splits.difference import co_occurrence
    from cissod_bench.splits.folder import statistics_of

    split = load_split(folder)
    own = {"digest": split.digest, "counts": dict(split.counts), "co_occurrence": co_occurrence(split)}
    return {**own, **statistics_of(split.folder)}


def verify_split(
    folder: AnyPath,
    *,
    images: AnyPath | None = None,
    validation: AnyPath | None = None,
    validation_images: AnyPath | None = None,
    annotations: AnyPath | None = None,
    progress: bool = False,
) -> "list[Check]":
    """Check what a split promises: digests, disjoint parts, floors, no hidden label.

    Args:
        folder: split folder.
        images: folder of the training images, to check that all exist.
        validation: validation annotations, to check that no validation image is in the split.
        validation_images: with `images`, folder of the validation images, to tell files of one name apart.
        annotations: training annotations (Objects365's for coco-o365), to check that the split omits nothing.
        progress: show a bar on standard error while annotations are read.

    Returns:
        Every promise, and what is wrong with it.

    Raises:
        UserError: no split is found, or a file cannot be read.

    Examples:
        >>> import cissod_bench as cb
        >>> [check.promise for check in cb.verify_split("splits/shapes") if check.problem]
        []
    """
    from cissod_bench.splits import verify
    from cissod_bench.splits.folder import read_manifest
    from cissod_bench.tasks.registry import dataset_of

    columns = None
    if annotations is not None:
        dataset = dataset_of(read_manifest(Path(folder)).task)
        columns = reader(dataset, progress=progress)(Path(annotations))[0]
    return verify.verify_split(
        Path(folder),
        images=optional(images),
        validation=optional(validation),
        validation_images=optional(validation_images),
        annotations=columns,
    )


def compare_splits(first: AnyPath, second: AnyPath) -> dict[str, Any]:
    """How two splits differ.

    Args:
        first: split folder.
        second: the other one.

    Returns:
        `same`, and what differs: `fields` of the manifest, `images` of each part, `groups`, `labeled_images` per class.

    Raises:
        UserError: a folder holds no split.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.compare_splits("splits/shapes", "splits/shapes")["same"]
        True
    """
    from cissod_bench.splits.difference import difference

    return difference(load_split(first), load_split(second))


def plot_splits(folders: AnyPath | Sequence[AnyPath], out: AnyPath) -> None:
    """Plot the original data against the labelled part, one panel per split (Fig. 4 of the paper has three).

    Args:
        folders: split folders.
        out: file to write, .png, .svg or .pdf.

    Raises:
        UserError: a folder holds no split, or `out` exists or has another ending.

    Examples:
        >>> import cissod_bench as cb
        >>> cb.plot_splits("splits/shapes", "distribution.svg")
    """
    from cissod_bench.splits.folder import statistics_of
    from cissod_bench.splits.plot import plot_figure_4, write_figure

    file = new_picture(out)
    splits = [load_split(folder, verify=False) for folder in some_paths(folders)]
    write_figure(plot_figure_4([(split.task, statistics_of(split.folder)) for split in splits]), file)
