"""Verifying a split folder: every check reads the files themselves, not what the manifest says about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.coco import checks, objects365
from cissod_bench.coco.columns import Bool, Columns
from cissod_bench.coco.names import clean_name
from cissod_bench.coco.reader import read_columns
from cissod_bench.errors import UserError
from cissod_bench.io import decode_json, read_regular
from cissod_bench.splits.folder import (
    DATA,
    IMAGE_DIGESTS,
    Ids,
    Split,
    damaged_files,
    file_names,
    load_split,
    read_manifest,
    statistics_of,
)
from cissod_bench.splits.images import missing_images, shared_images
from cissod_bench.tasks.registry import dataset_of


@dataclass(frozen=True)
class Check:
    """One promise of a split, and what is wrong with it; empty if nothing is."""

    promise: str
    problem: str


def verify_split(
    folder: Path,
    *,
    images: Path | None = None,
    validation: Path | None = None,
    validation_images: Path | None = None,
    annotations: Columns | None = None,
) -> list[Check]:
    """Check a split folder.

    Args:
        folder: the split.
        images: folder of the training images, to check that all of them exist.
        validation: validation annotations of the task, to check that none of their images is trained on.
        validation_images: folder of the validation images; with `images`, files of one name in both folders are told
            apart by their content. Without, one name is taken for one file.
        annotations: the training annotations, to check what the folder alone cannot tell. For `coco-o365` those of
            Objects365.

    Raises:
        UserError: there is no split, its manifest was altered, or one of its files is not in COCO form.
    """
    split = load_split(folder, verify=False)
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: no such folder.")
    labeled, unlabeled = read_columns(split.labeled_file), read_columns(split.unlabeled_file)
    held_out = read_columns(split.validation_file) if split.validation_file else None
    parts = [labeled, unlabeled, *([held_out] if held_out else [])]
    exhausted: dict[str, int] = statistics_of(folder)["unmet_floors"]
    results = [
        Check("every file has the sha256 of the manifest", _listed(damaged_files(folder, read_manifest(folder)))),
        Check("D_m, D_s and D_u share no image", _shared(split)),
        Check("no image file is in two parts", _shared_files(parts)),
        Check("D_l and D_u are all training images", _total(split)),
        Check("labeled.json lists D_l", _same_ids(labeled, split.labeled_ids)),
        Check("unlabeled.json lists D_u", _same_ids(unlabeled, split.unlabeled_ids)),
        Check("unlabeled.json holds no label", _hidden_labels(split.unlabeled_file, unlabeled)),
        Check("every annotation is of an image of D_l and a class of the task", _stray_boxes(split, labeled)),
        Check("every class has its floor of boxes, or all that there are", _floors(split, labeled, exhausted)),
    ]
    if held_out:
        results.append(Check("no held-out image is trained on", _trained_on(held_out, labeled, unlabeled)))
    if validation is not None:
        results.append(
            Check(
                "no validation image is trained on",
                _validated_on_training(
                    folder, read_columns(validation), [labeled, unlabeled], images, validation_images
                ),
            )
        )
    if annotations is not None:
        results += _against_source(split, _sized(annotations, parts), held_out, exhausted)
    for name, digest in IMAGE_DIGESTS.items():
        if (folder / name).is_file():
            problem = _changed_images(folder, name, digest)
            results.append(Check("the images of data/ are those that were made", problem))
    if images is not None:
        missing = missing_images(images, [name for part in parts for name in part.file_names.tolist()])
        results.append(Check(f"every image is in {images}", _listed(missing)))
    return results


def _listed(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""


def _shared(split: Split) -> str:
    ids = np.concatenate([split.majority_ids, split.minority_ids, split.unlabeled_ids])
    unique, counts = np.unique(ids, return_counts=True)
    return _listed([str(image_id) for image_id in unique[counts > 1].tolist()])


def _total(split: Split) -> str:
    found = len(split.labeled_ids) + len(split.unlabeled_ids)
    wanted = split.counts["train_images"]
    return "" if found == wanted else f"{found} images instead of {wanted}"


def _same_ids(part: Columns, ids: Ids) -> str:
    return _listed(list(map(str, np.setxor1d(part.image_ids, ids).tolist())))


def _hidden_labels(path: Path, part: Columns) -> str:
    if part.num_boxes:
        return f"{part.num_boxes} annotations"
    # All keys, including those that no reader looks at.
    images: list[dict[str, Any]] = decode_json(read_regular(path), dict[str, Any], name=path)["images"]
    fields = {key for image in images for key in image} - {"id", "file_name", "width", "height"}
    return f"fields of images that may tell classes: {', '.join(sorted(fields))}" if fields else ""


def _stray_boxes(split: Split, part: Columns) -> str:
    images = np.append(
        np.isin(part.image_ids, split.labeled_ids), False
    )  # the last for boxes of unknown images, row -1
    classes = np.append(np.isin(_class_ids(part), [entry["id"] for entry in split.classes]), False)
    stray = int((~(images[part.box_image] & classes[part.box_label])).sum())
    return f"{stray} others" if stray else ""


def _floors(split: Split, part: Columns, exhausted: Mapping[str, int]) -> str:
    """Floors hold in D_s for minority classes, in scenario 2 in D_l for every class."""
    options = split.options
    if options.get("imported"):
        return ""
    everywhere = bool(options["coverage"])
    inside = np.append(np.isin(part.image_ids, split.labeled_ids if everywhere else split.minority_ids), False)
    counted = inside[part.box_image] & ~part.crowd & (part.box_label >= 0)
    numbers = np.bincount(part.box_label[counted], minlength=len(part.categories))
    boxes = dict(zip(_class_ids(part), numbers.tolist(), strict=True))
    floors = set(split.class_names if everywhere else split.groups["min"])
    short = [
        f"{entry['name']} ({boxes.get(entry['id'], 0)})"
        for entry in split.classes
        if entry["name"] in floors and boxes.get(entry["id"], 0) < exhausted.get(entry["name"], options["floor"])
    ]
    return _listed(short)


def _class_ids(part: Columns) -> list[int]:
    return [category.id for category in part.categories]


def _trained_on(held_out: Columns, *trained: Columns) -> str:
    """Held-out images that are trained on. Two data sets may both count from 1, so id and file must agree."""
    seen: dict[tuple[int, str], set[str]] = {}
    for part in trained:
        for image_id, folder, name in _places(part):
            seen.setdefault((image_id, name), set()).add(folder)
    found = []
    for image_id, folder, name in _places(held_out):
        # A file name without a folder may be in any folder.
        if (folders := seen.get((image_id, name))) and (not folder or folder in folders or "" in folders):
            found.append(f"{folder}/{name}".lstrip("/"))
    return _listed(found)


def _validated_on_training(
    folder: Path, held_out: Columns, trained: Sequence[Columns], images: Path | None, validation_images: Path | None
) -> str:
    """Validation images that are trained on: by id and file, by file, or by content where both folders are given."""
    names = [name for part in trained for name in part.file_names.tolist()]
    held_out_names = held_out.file_names.tolist()
    if images is not None and validation_images is not None:
        return _listed(shared_images(images, names, validation_images, held_out_names))
    if (folder / DATA).is_dir():  # the package made both parts, in two folders that number their files alike
        return _trained_on(held_out, *trained)
    known = set(names)
    return _trained_on(held_out, *trained) or _listed([name for name in held_out_names if name in known])


def _places(part: Columns) -> Iterator[tuple[int, str, str]]:
    """Id, folder and file name of every image: LVIS gives a URL, Objects365 other folders than its archives have."""
    for image_id, path in zip(part.image_ids.tolist(), part.file_names.tolist(), strict=True):
        names = path.rsplit("/", 2)
        yield image_id, (names[-2] if len(names) > 1 else ""), names[-1]


def _shared_files(parts: Sequence[Columns]) -> str:
    """Files that two parts name under different ids: such images would be both labelled and unlabelled, say."""
    seen: dict[str, int] = {}
    shared = []
    for number, part in enumerate(parts):
        for name in part.file_names.tolist():
            if seen.setdefault(name, number) != number:
                shared.append(name)
    return _listed(shared)


def _sized(columns: Columns, parts: Sequence[Columns]) -> Columns:
    """Annotations with the sizes that the split has read from the images where the annotations lack them."""
    if (columns.widths > 0).all() and (columns.heights > 0).all():
        return columns
    widths, heights = columns.widths.copy(), columns.heights.copy()
    for part in parts:
        rows = np.searchsorted(columns.image_ids, part.image_ids)
        rows[rows == columns.num_images] = 0
        lacking = (columns.image_ids[rows] == part.image_ids) & ((widths[rows] <= 0) | (heights[rows] <= 0))
        widths[rows[lacking]], heights[rows[lacking]] = part.widths[lacking], part.heights[lacking]
    return checks.with_sizes(columns, widths, heights)


def _against_source(
    split: Split, columns: Columns, held_out: Columns | None, exhausted: Mapping[str, int]
) -> list[Check]:
    """What only the annotations can tell: that no image is left out, and that no floor could have been met."""
    found = columns.digest == split.source["content"]
    held_out_ids = held_out.image_ids if held_out else np.empty(0, np.int64)
    first_of_folder = split.source.get("folder_first_id", np.inf)
    ids = [split.minority_ids, split.unlabeled_ids[split.unlabeled_ids < first_of_folder], held_out_ids]
    if "majority_content" not in split.source:
        ids.append(split.majority_ids)
    available: Bool = np.ones(columns.num_images, np.bool_)
    dataset = dataset_of(split.task)
    if dataset == "objects365":
        names = objects365.unpacked_names(columns.file_names.tolist())
        available = np.array([name not in objects365.ABSENT_FILES for name in names], np.bool_)
    differing = np.setxor1d(columns.image_ids[available], np.concatenate(ids))
    available &= ~np.isin(columns.image_ids, held_out_ids)
    counted = checks.usable(columns, dataset) & ~columns.crowd & np.append(available, False)[columns.box_image]
    boxes = np.bincount(columns.box_label[counted], minlength=len(columns.categories))
    total = {clean_name(category.name): int(count) for category, count in zip(columns.categories, boxes, strict=True)}
    wrong = [
        f"{name} ({count} said, {total.get(clean_name(name))} there)"
        for name, count in exhausted.items()
        if total.get(clean_name(name)) != count
    ]
    return [
        Check("the annotations are those of the split", "" if found else "their content differs"),
        Check("D_l, D_u and held-out images are all images of the annotations", _listed(list(map(str, differing)))),
        Check("classes under their floor have no more boxes in the annotations", _listed(wrong)),
    ]


def _changed_images(folder: Path, listed: str, digest: Callable[[Path], str]) -> str:
    try:
        lines = read_regular(folder / listed).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return f"{listed} cannot be read: {error}"
    expected = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    there = {name for name in file_names(folder / DATA) if name.endswith(".png")}
    changed = sorted({f"{DATA}/{name}" for name in there} - set(expected))  # images that are not listed
    for name, value in expected.items():
        inside = name.startswith(f"{DATA}/") and ".." not in Path(name).parts
        try:
            actual = digest(folder / name) if inside and (folder / name).is_file() else ""
        except OSError:  # damaged
            actual = ""
        if actual != value:
            changed.append(name)
    return _listed(changed)
