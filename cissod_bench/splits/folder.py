"""The split folder: what is in it, its digest, how it is written and read.

::

    split.json        the manifest: task, protocol, seed, options, classes, groups, counts, sha256 of every other file
    labeled.json      D_l as COCO JSON, sorted by id
    unlabeled.json    D_u as COCO JSON without annotations: an image list, so no hidden label can leak
    val.json          only where the task asks for a held-out part of the training data
    ids/*.txt         D_m (majority), D_s (minority), D_u (unlabeled) and the held-out part, one image id a line
    data/             only for tasks whose data the package makes: train.json, val.json, images, and PIXELS.sha256, the
                      SHA-256 of the pixels of each image; not of its file, whose compression depends on zlib
    statistics.json   images and boxes per class and group, faults of the annotations; outside the digest, since it only
                      summarises the other files
    source.json       name, size and sha256 of the file that was read; outside the digest, since the same annotations
                      in another order give the same split
    distribution.*    the plot; outside the digest, since the bytes of a picture depend on the plotting library

The digest is the SHA-256 of the canonical JSON of the manifest without the digest itself. Since the manifest lists the
SHA-256 of the other files, the digest identifies everything that training sees.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.errors import UserError
from cissod_bench.io import (
    canonical_json,
    decode_json,
    read_regular,
    sha256_file,
    sha256_text,
    write_json,
    write_text,
)
from cissod_bench.splits.images import pixels_sha256

SCHEMA = 1
"""Version of the layout of the folder; the selection protocol has its own version, `Task.version`."""

MANIFEST = "split.json"
LABELED = "labeled.json"
UNLABELED = "unlabeled.json"
VALIDATION = "val.json"
STATISTICS = "statistics.json"
SOURCE = "source.json"
ID_FILES = {role: f"ids/{role}.txt" for role in ("majority", "minority", "unlabeled", "validation")}
PLOTS = ("distribution.png", "distribution.svg")
OUTSIDE_DIGEST = (MANIFEST, STATISTICS, SOURCE, *PLOTS)
DATA = "data"
PIXEL_DIGESTS = "data/PIXELS.sha256"
IMAGE_DIGESTS: Mapping[str, Callable[[Path], str]] = {PIXEL_DIGESTS: pixels_sha256, "data/SHA256SUMS": sha256_file}
"""Lists of the digests of the images in `data/`, and how each is computed; older folders have the second."""
SPLIT_FILES = (LABELED, UNLABELED, VALIDATION, *ID_FILES.values(), *OUTSIDE_DIGEST)

_DATA_FILES = (*(f"{DATA}/{part}.json" for part in ("train", "val")), *IMAGE_DIGESTS)
LARGEST = 2**28
"""Bytes of a manifest, of statistics and of a list of ids that is read."""

Ids = npt.NDArray[np.int64]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `split.json`; see the fields of the same names in `Split`."""

    schema: int
    task: str
    protocol: int
    seed: int
    options: dict[str, Any]
    source: dict[str, Any]
    classes: list[dict[str, Any]]
    groups: dict[str, list[str]]
    counts: dict[str, int]
    outputs: dict[str, str]
    digest: str


@dataclass(frozen=True)
class Split:
    """A split folder that has been read and, by default, verified.

    Attributes:
        folder: the folder itself.
        task: name of the task; for a custom task the name in its file.
        protocol: `Task.version` when the split was made.
        seed: seed of the selection.
        options: what decided the selection: `fraction`, `floor`, `coverage`, `minority_draw`, `minority_objects`, ...
        source: order-independent digest `content` of the annotations, and their number of `images` and `boxes`.
        digest: identity of the split, SHA-256 in hexadecimal.
        classes: `{"id": category id, "name": name}` in label order (label = position).
        groups: class names by group: `maj` and `min`, or `f`, `c` and `r` counted in D_l.
        counts: `train_images`, `labeled_images`, `majority_images`, `minority_images`, `unlabeled_images`,
            `labeled_boxes`, ...
        majority_ids: image ids of D_m (scenario 2: of all D_l), ascending, int64 `[N]`.
        minority_ids: image ids of D_s, ascending, int64 `[N]`.
        unlabeled_ids: image ids of D_u, ascending, int64 `[N]`.
        labeled_file: D_l as COCO JSON.
        unlabeled_file: D_u as COCO JSON without annotations.
        validation_file: the held-out validation part; None if the task has its own validation data.
    """

    folder: Path
    task: str
    protocol: int
    seed: int
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    digest: str
    classes: tuple[Mapping[str, Any], ...]
    groups: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, int]
    majority_ids: Ids
    minority_ids: Ids
    unlabeled_ids: Ids
    labeled_file: Path
    unlabeled_file: Path
    validation_file: Path | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return tuple(entry["name"] for entry in self.classes)

    @property
    def label_fraction(self) -> float | None:
        """The fraction that the selection of D_l was asked for; None where it was a number of images, or given."""
        asked = "count" not in self.options and not self.options.get("imported")
        return float(self.options["fraction"]) if asked and "fraction" in self.options else None

    @property
    def labeled_ids(self) -> Ids:
        """Image ids of D_l = D_m + D_s, ascending."""
        return np.sort(np.concatenate([self.majority_ids, self.minority_ids]))


def load_split(folder: Path, *, verify: bool = True) -> Split:
    """Read a split folder.

    Args:
        folder: a folder written by `make-splits`.
        verify: compare the SHA-256 of every file with the manifest. The digest of the manifest is always checked.

    Raises:
        UserError: there is no split, or it has changed since it was written.
    """
    manifest = read_manifest(folder)
    if verify:
        damaged = damaged_files(folder, manifest)
        if damaged:
            raise UserError(
                f"{folder}: {', '.join(damaged)} differ from the manifest {MANIFEST} or are missing. "
                "Make the split again with `make-splits --force`."
            )
    validation = folder / VALIDATION
    return Split(
        folder=folder,
        task=manifest.task,
        protocol=manifest.protocol,
        seed=manifest.seed,
        options=manifest.options,
        source=manifest.source,
        digest=manifest.digest,
        classes=tuple(manifest.classes),
        groups={name: tuple(members) for name, members in manifest.groups.items()},
        counts=manifest.counts,
        majority_ids=read_ids(folder / ID_FILES["majority"]),
        minority_ids=read_ids(folder / ID_FILES["minority"]),
        unlabeled_ids=read_ids(folder / ID_FILES["unlabeled"]),
        labeled_file=folder / LABELED,
        unlabeled_file=folder / UNLABELED,
        validation_file=validation if VALIDATION in manifest.outputs else None,
    )


def read_manifest(folder: Path) -> Manifest:
    """Read `split.json` and check that its digest is the digest of its content.

    Raises:
        UserError: there is no manifest, it has another schema, or it was altered after it was written.
    """
    path = folder / MANIFEST
    try:
        content = read_regular(path, LARGEST)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no split: there is no {MANIFEST}. Make one with `make-splits`.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    what = f"{path} is not a split manifest, and"
    schema = decode_json(content, _SchemaOnly, name=what).schema
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}; this version of cissod-bench reads schema {SCHEMA}.")
    manifest = decode_json(content, Manifest, name=what)
    expected = manifest_digest(msgspec.to_builtins(manifest))
    if manifest.digest != expected:
        raise UserError(
            f"{path} was altered: its digest is {manifest.digest[:12]}..., its content has {expected[:12]}.... "
            "Make the split again with `make-splits --force`."
        )
    _check_outputs(folder, manifest)
    return manifest


def _check_outputs(folder: Path, manifest: Manifest) -> None:
    """Refuse a manifest that does not list what it must, or lists what is not in the folder.

    Raises:
        UserError: with the file.
    """
    path = folder / MANIFEST
    for name in manifest.outputs:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name or Path(name).as_posix() != name:
            raise UserError(f"{path} lists {name!r}, which is not the name of a file in the folder.")
    roles = ("majority", "minority", "unlabeled")
    needed = {LABELED, UNLABELED, *(ID_FILES[role] for role in roles)}
    there = {name for name in (VALIDATION, ID_FILES["validation"], *_DATA_FILES) if os.path.lexists(folder / name)}
    unlisted = sorted((needed | there) - set(manifest.outputs))
    if unlisted:
        raise UserError(
            f"{path} does not list {', '.join(unlisted)}, so nothing says whether they are what they were. "
            "Make the split again with `make-splits --force`."
        )


class _SchemaOnly(msgspec.Struct):
    schema: int


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of the manifest without its entry `digest`."""
    return sha256_text(canonical_json({key: value for key, value in manifest.items() if key != "digest"}))


def damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    """Names of the files that are missing or differ from the manifest."""
    damaged = []
    for name, expected in sorted(manifest.outputs.items()):
        try:
            actual = sha256_file(folder / name)
        except OSError:
            actual = "unreadable"
        if actual != expected:
            damaged.append(name)
    return damaged


def statistics_of(folder: Path) -> dict[str, Any]:
    """The content of a split folder's `statistics.json`.

    Raises:
        UserError: it is missing or damaged.
    """
    path, remedy = folder / STATISTICS, "Make the split again with `make-splits --force`."
    try:
        content = read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. {remedy}") from None
    decode_json(content, _Statistics, name=path, remedy=remedy)
    found: dict[str, Any] = decode_json(content, dict[str, Any], name=path, remedy=remedy)
    return found


Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _ClassCounts(msgspec.Struct):
    name: str
    group: str
    train_boxes: Count
    labeled_boxes: Count
    labeled_images: Count = 0
    unlabeled_boxes: Count = 0


class _Fault(msgspec.Struct):
    what: str
    boxes: Count
    handled: str
    annotation_ids: list[int]


class _Statistics(msgspec.Struct):
    """What the readers of `statistics.json` rely on."""

    classes: Annotated[list[_ClassCounts], msgspec.Meta(min_length=1)]
    groups: dict[str, dict[str, Any]]
    health: list[_Fault] = []
    unmet_floors: dict[str, Count] = {}


@dataclass(frozen=True)
class SplitRecord:
    """What defines a split apart from its files: the manifest without digests. Fields as in `Split`."""

    task: str
    protocol: int
    seed: int
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    classes: Sequence[Mapping[str, Any]]
    groups: Mapping[str, Sequence[str]]
    counts: Mapping[str, int]


def seal_split(folder: Path, record: SplitRecord) -> Manifest:
    """Write the manifest of all files in `folder`, except those outside the digest.

    Images in `data/` are not listed one by one: the manifest lists the file with the digests of their pixels.
    """
    images = [name for name in file_names(folder) if name.startswith(f"{DATA}/") and name.endswith(".png")]
    if images:
        write_text(folder / PIXEL_DIGESTS, "".join(f"{pixels_sha256(folder / name)}  {name}\n" for name in images))
    outputs = {
        name: sha256_file(folder / name)
        for name in file_names(folder)
        if name not in OUTSIDE_DIGEST and name not in images
    }
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "task": record.task,
        "protocol": record.protocol,
        "seed": record.seed,
        "options": dict(record.options),
        "source": dict(record.source),
        "classes": [dict(entry) for entry in record.classes],
        "groups": {name: list(members) for name, members in record.groups.items()},
        "counts": dict(record.counts),
        "outputs": outputs,
    }
    content["digest"] = manifest_digest(content)
    write_json(folder / MANIFEST, content)
    return msgspec.convert(content, Manifest)


def write_ids(path: Path, ids: Ids) -> None:
    """Write image ids in ascending order, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(map(str, np.sort(ids).tolist()))
    path.write_text(lines + "\n" if lines else "", encoding="ascii")


def read_ids(path: Path) -> Ids:
    """Read the image ids of a file that `write_ids` wrote, int64 `[N]`.

    Raises:
        UserError: it is not such a file.
    """
    try:
        return np.array(read_regular(path, LARGEST).split(), dtype=np.int64)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a list of image ids: {error}.") from None


def file_names(folder: Path) -> list[str]:
    """Paths of all files under a folder, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def existing_digest(folder: Path) -> str | None:
    """Digest of the split in a folder, None if there is none that can be read."""
    try:
        return read_manifest(folder).digest
    except UserError:
        return None
