"""Does a split folder keep its promises? Every check reads the files themselves, not what the manifest says of them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.errors import UserError
from cissod_bench.files import sha256_file
from cissod_bench.splits import manifest
from cissod_bench.splits.images import missing_images
from cissod_bench.splits.manifest import Split


@dataclass(frozen=True)
class Check:
    """One promise: what it is, and what is wrong, empty if nothing is."""

    promise: str
    problem: str


class CocoImage(msgspec.Struct):
    """An image of a COCO file, as far as it tells images apart."""

    id: int
    file_name: str = ""


class CocoBox(msgspec.Struct):
    """An annotation of a COCO file, as far as it counts."""

    image_id: int
    category_id: int
    iscrowd: int = 0


class CocoFile(msgspec.Struct):
    """A COCO file of a split folder."""

    images: list[CocoImage]
    annotations: list[CocoBox]


def verify_split(folder: Path, *, images: Path | None = None, validation: Path | None = None) -> list[Check]:
    """Check a split folder.

    Args:
        folder: the split.
        images: folder of the training images, to check that all are there.
        validation: validation annotations of the task, to check that none of their images is trained on.

    Raises:
        UserError: there is no split, its manifest was altered, or a file of it is not in COCO form.
    """
    split = manifest.load_split(folder, verify=False)
    content = manifest.read_manifest(folder)
    labeled, unlabeled = read_coco_file(split.labeled_file), read_coco_file(split.unlabeled_file)
    checks = [
        Check("every file has the sha256 of the manifest", _listed(manifest.damaged_files(folder, content))),
        Check("D_m, D_s and D_u share no image", _shared(split)),
        Check("D_l and D_u are all training images", _total(split)),
        Check("labeled.json lists D_l", _same_ids(labeled, split.labeled_ids)),
        Check("unlabeled.json lists D_u", _same_ids(unlabeled, split.unlabeled_ids)),
        Check("unlabeled.json holds no label", _hidden_labels(split.unlabeled_file, unlabeled)),
        Check("every annotation is of an image of D_l and a class of the task", _stray_boxes(split, labeled)),
        Check("every class has its floor of boxes, or all that there are", _floors(split, labeled)),
    ]
    if split.validation_file is not None:
        held_out = read_coco_file(split.validation_file)
        checks.append(Check("no held-out image is trained on", _trained_on(held_out, labeled, unlabeled)))
    if validation is not None:
        checks.append(
            Check("no validation image is trained on", _trained_on(read_coco_file(validation), labeled, unlabeled))
        )
    if (folder / manifest.DATA_SUMS).is_file():
        checks.append(Check("the images of data/ are those that were made", _changed_images(folder)))
    if images is not None:
        names = [image.file_name for image in (*labeled.images, *unlabeled.images)]
        missing = missing_images(images, names)
        checks.append(Check(f"every image is in {images}", _listed(missing)))
    return checks


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


def _floors(split: Split, file: CocoFile) -> str:
    """Floors hold in D_s for minority classes, in scenario 2 in D_l for every class."""
    options = split.options
    if options.get("imported"):
        return ""
    everywhere = bool(options["coverage"])
    inside = set((split.labeled_ids if everywhere else split.minority_ids).tolist())
    boxes = Counter(box.category_id for box in file.annotations if box.image_id in inside and not box.iscrowd)
    floors = set(split.class_names if everywhere else split.groups["min"])
    statistics = msgspec.json.decode((split.folder / manifest.STATISTICS).read_bytes())
    exhausted: dict[str, int] = statistics["unmet_floors"]
    short = [
        f"{entry['name']} ({boxes[entry['id']]})"
        for entry in split.classes
        if entry["name"] in floors and boxes[entry["id"]] < exhausted.get(entry["name"], options["floor"])
    ]
    return _listed(short)


def _trained_on(held_out: CocoFile, *trained: CocoFile) -> str:
    # Two data sets may both count from 1, so an image is the same only if id and file agree.
    seen = {(image.id, image.file_name) for file in trained for image in file.images}
    return _listed([image.file_name for image in held_out.images if (image.id, image.file_name) in seen])


def _changed_images(folder: Path) -> str:
    changed = []
    for line in (folder / manifest.DATA_SUMS).read_text().splitlines():
        expected, name = line.split("  ", 1)
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected:
            changed.append(name)
    return _listed(changed)
