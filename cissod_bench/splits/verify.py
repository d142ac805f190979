"""Does a split folder keep its promises? Every check reads the files themselves, not what the manifest says of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.coco import checks, objects365
from cissod_bench.coco.columns import Bool, Columns
from cissod_bench.errors import UserError
from cissod_bench.splits import folder as manifest
from cissod_bench.splits.folder import Split
from cissod_bench.splits.images import missing_images
from cissod_bench.tasks.registry import dataset_of


@dataclass(frozen=True)
class Check:
    """One promise: what it is, and what is wrong, empty if nothing is."""

    promise: str
    problem: str


class CocoImage(msgspec.Struct):
    """An image of a COCO file, as far as it tells images apart."""

    id: int
    file_name: str = ""
    coco_url: str = ""


class CocoBox(msgspec.Struct):
    """An annotation of a COCO file, as far as it counts."""

    image_id: int
    category_id: int
    iscrowd: int = 0


class CocoFile(msgspec.Struct):
    """A COCO file of a split folder."""

    images: list[CocoImage]
    annotations: list[CocoBox]


def verify_split(
    folder: Path, *, images: Path | None = None, validation: Path | None = None, annotations: Columns | None = None
) -> list[Check]:
    """Check a split folder.

    Args:
        folder: the split.
        images: folder of the training images, to check that all are there.
        validation: validation annotations of the task, to check that none of their images is trained on.
        annotations: the training annotations, to check against them what the folder alone cannot tell. For `coco-o365`
            those of Objects365.

    Raises:
        UserError: there is no split, its manifest was altered, or a file of it is not in COCO form.
    """
    split = manifest.load_split(folder, verify=False)
    content = manifest.read_manifest(folder)
    labeled, unlabeled = read_coco_file(split.labeled_file), read_coco_file(split.unlabeled_file)
    held_out = read_coco_file(split.validation_file) if split.validation_file else CocoFile([], [])
    exhausted: dict[str, int] = statistics_of(folder)["unmet_floors"]
    checks = [
        Check("every file has the sha256 of the manifest", _listed(manifest.damaged_files(folder, content))),
        Check("D_m, D_s and D_u share no image", _shared(split)),
        Check("no image file is in two parts", _shared_files(labeled, unlabeled, held_out)),
        Check("D_l and D_u are all training images", _total(split)),
        Check("labeled.json lists D_l", _same_ids(labeled, split.labeled_ids)),
        Check("unlabeled.json lists D_u", _same_ids(unlabeled, split.unlabeled_ids)),
        Check("unlabeled.json holds no label", _hidden_labels(split.unlabeled_file, unlabeled)),
        Check("every annotation is of an image of D_l and a class of the task", _stray_boxes(split, labeled)),
        Check("every class has its floor of boxes, or all that there are", _floors(split, labeled, exhausted)),
    ]
    if split.validation_file is not None:
        checks.append(Check("no held-out image is trained on", _trained_on(held_out, labeled, unlabeled)))
    if validation is not None:
        checks.append(
            Check("no validation image is trained on", _trained_on(read_coco_file(validation), labeled, unlabeled))
        )
    if annotations is not None:
        checks += _against_source(split, annotations, held_out, exhausted)
    for name, digest in manifest.IMAGE_DIGESTS.items():
        if (folder / name).is_file():
            problem = _changed_images(folder, name, digest)
            checks.append(Check("the images of data/ are those that were made", problem))
    if images is not None:
        names = [image.file_name for file in (labeled, unlabeled, held_out) for image in file.images]
        missing = missing_images(images, names)
        checks.append(Check(f"every image is in {images}", _listed(missing)))
    return checks


def statistics_of(folder: Path) -> dict[str, Any]:
    """The content of a split folder's `statistics.json`.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / manifest.STATISTICS
    try:
        content: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Make the split again with `make-splits --force`.") from None
    return content


def read_coco_file(path: Path) -> CocoFile:
    """Read a COCO file whole: for the files of a split, which hold a tenth of a data set's boxes.

    Raises:
        UserError: the file cannot be read or is not in COCO form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=CocoFile)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not in COCO form: {error}.") from None


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


def _same_ids(file: CocoFile, ids: manifest.Ids) -> str:
    found, wanted = {image.id for image in file.images}, set(ids.tolist())
    if len(found) < len(file.images):
        return f"{len(file.images) - len(found)} ids twice"
    return _listed([str(image_id) for image_id in sorted(found ^ wanted)])


def _hidden_labels(path: Path, file: CocoFile) -> str:
    if file.annotations:
        return f"{len(file.annotations)} annotations"
    images: list[dict[str, Any]] = msgspec.json.decode(path.read_bytes())["images"]
    fields = {key for image in images for key in image} - {"id", "file_name", "width", "height"}
    return f"fields of images that may tell classes: {', '.join(sorted(fields))}" if fields else ""


def _stray_boxes(split: Split, file: CocoFile) -> str:
    images, classes = set(split.labeled_ids.tolist()), {entry["id"] for entry in split.classes}
    stray = sum(box.image_id not in images or box.category_id not in classes for box in file.annotations)
    return f"{stray} others" if stray else ""


def _floors(split: Split, file: CocoFile, exhausted: Mapping[str, int]) -> str:
    """Floors hold in D_s for minority classes, in scenario 2 in D_l for every class."""
    options = split.options
    if options.get("imported"):
        return ""
    everywhere = bool(options["coverage"])
    inside = set((split.labeled_ids if everywhere else split.minority_ids).tolist())
    boxes = Counter(box.category_id for box in file.annotations if box.image_id in inside and not box.iscrowd)
    floors = set(split.class_names if everywhere else split.groups["min"])
    short = [
        f"{entry['name']} ({boxes[entry['id']]})"
        for entry in split.classes
        if entry["name"] in floors and boxes[entry["id"]] < exhausted.get(entry["name"], options["floor"])
    ]
    return _listed(short)


def _trained_on(held_out: CocoFile, *trained: CocoFile) -> str:
    """Held-out images that are trained on. Two data sets may both count from 1, so id and file must agree."""
    seen: dict[tuple[int, str], set[str]] = {}
    for file in trained:
        for image in file.images:
            folder, name = _place(image)
            seen.setdefault((image.id, name), set()).add(folder)
    found = []
    for image in held_out.images:
        folder, name = _place(image)
        # A file that is named without a folder may lie in any.
        if (folders := seen.get((image.id, name))) and (not folder or folder in folders or "" in folders):
            found.append(f"{folder}/{name}".lstrip("/"))
    return _listed(found)


def _place(image: CocoImage) -> tuple[str, str]:
    """Folder and name of an image's file: LVIS names it by its URL, Objects365 and its archives by other folders."""
    parts = (image.file_name or image.coco_url).rsplit("/", 2)
    return (parts[-2] if len(parts) > 1 else ""), parts[-1]


def _shared_files(*parts: CocoFile) -> str:
    """Files that two parts name under different ids: one picture would be both labelled and not, or validated on."""
    seen: dict[str, int] = {}
    shared = []
    for number, part in enumerate(parts):
        for image in part.images:
            if seen.setdefault(image.file_name, number) != number:
                shared.append(image.file_name)
    return _listed(shared)


def _against_source(split: Split, columns: Columns, held_out: CocoFile, exhausted: Mapping[str, int]) -> list[Check]:
    """What only the annotations can tell: that nothing of them is left out, and that no floor could be met better."""
    found = columns.digest == split.source["content"]
    ids = [split.minority_ids, split.unlabeled_ids, np.array([image.id for image in held_out.images], np.int64)]
    if "majority_content" not in split.source:
        ids.append(split.majority_ids)
    available: Bool = np.ones(columns.num_images, np.bool_)
    dataset = dataset_of(split.task)
    if dataset == "objects365":
        names = objects365.unpacked_names(columns.file_names.take(np.arange(columns.num_images)))
        available = np.array([name not in objects365.ABSENT_FILES for name in names], np.bool_)
    differing = np.setxor1d(columns.image_ids[available], np.concatenate(ids))
    available &= ~np.isin(columns.image_ids, ids[2])
    counted = checks.usable(columns, dataset) & ~columns.crowd & np.append(available, False)[columns.box_image]
    boxes = np.bincount(columns.box_label[counted], minlength=len(columns.categories))
    total = {category.name: int(count) for category, count in zip(columns.categories, boxes, strict=True)}
    wrong = [
        f"{name} ({count} said, {total.get(name)} there)"
        for name, count in exhausted.items()
        if total.get(name) != count
    ]
    return [
        Check("the annotations are those of the split", "" if found else "their content differs"),
        Check("D_l, D_u and held-out images are all images of the annotations", _listed(list(map(str, differing)))),
        Check("classes under their floor have no more boxes in the annotations", _listed(wrong)),
    ]


def _changed_images(folder: Path, listed: str, digest: Callable[[Path], str]) -> str:
    changed = []
    for line in (folder / listed).read_text().splitlines():
        expected, name = line.split("  ", 1)
        try:
            actual = digest(folder / name)
        except OSError:  # not there, or damaged
            actual = ""
        if actual != expected:
            changed.append(name)
    return _listed(changed)
