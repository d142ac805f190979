"""A run's teacher outside of training: detections on any images, and a bundle to publish."""

import importlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmdet.datasets  # noqa: F401  mmengine imports it when it looks for a model, which prints a line about OneDL
import msgspec
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from numpy.typing import NDArray

from cissod_bench.errors import UserError
from cissod_bench.evaluation.inputs import check_score
from cissod_bench.io import decode_json, read_regular, staged_folder, write_bytes
from cissod_bench.results.record import Result
from cissod_bench.results.run_folder import RunFolder, parse_config
from cissod_bench.ssod.checkpoint_reading import load_checkpoint
from cissod_bench.ssod.data.damaged import DamagedImage
from cissod_bench.ssod.hooks.checkpoints import is_whole, newest_readable, read_config
from cissod_bench.ssod.randomness import preserved_randomness
from cissod_bench.training.config_diff import differences, show
from cissod_bench.training.earlier_configs import in_todays_terms
from cissod_bench.training.process.isolation import own_instances
from cissod_bench.training.trained.pictures import draw

LONGEST_NAME = 255 - len("..partial")
"""Bytes of an image's name with which the temporary file of its picture can have one."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Image files that a folder is searched for, whatever their case."""


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections on one image, best first.

    Attributes:
        size: width and height of the image in pixels.
        boxes: (N, 4) float32: x, y, width, height in pixels.
        scores: (N,) float32.
        labels: (N,) int64, positions in the list of classes.
        names: their classes.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Predictor:
    """The teacher of a run, ready to detect.

    Attributes:
        detector: mmdet's detector with the teacher's weights, in evaluation mode.
        config: the run's configuration.
        categories: `id` and `name` of each class in label order.
        checkpoint: where the weights are from.
    """

    detector: Any
    config: Config
    categories: list[dict[str, Any]]
    checkpoint: Path

    @torch.no_grad()
    def predict(self, image: str | Path) -> Detections:
        """Detections on one image file, as in the run's evaluation.

        Raises:
            UserError: the file holds no whole image, or cannot be read.
        """
        file = Path(image)
        with own_instances(), DefaultScope.overwrite_default_scope("mmdet"):
            pipeline = Compose(self.config.test_dataloader.dataset.pipeline)
            try:
                item = pipeline({"img_path": str(file), "img_id": 0})
            except DamagedImage as error:
                raise UserError(f"{error} Replace it, or take it out of the folder.") from error
            except OSError as error:
                raise UserError(f"{file}: cannot be read: {error.strerror}.") from error
            except cv2.error as error:  # no pixel left when it is resized
                raise UserError(f"{file}: too long and thin to be resized. Cut it up, or take it out.") from error
            (sample,) = self.detector.test_step({"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]})
        found = sample.pred_instances
        boxes = found.bboxes.cpu().numpy()
        boxes[:, 2:] -= boxes[:, :2]
        height, width = sample.ori_shape
        labels = found.labels.cpu().numpy()
        return Detections(
            size=(int(width), int(height)),
            boxes=boxes,
            scores=found.scores.cpu().numpy(),
            labels=labels,
            names=tuple(str(self.categories[label]["name"]) for label in labels),
        )

    def predict_images(
        self, images: str | Path, out: str | Path, *, min_score: float = 0.0, drawn: float | None = None
    ) -> tuple[int, int]:
        """Detections on an image, or on the images in a folder and those below it.

        Writes `detections.json` (COCO's results with `file_name` and `category` in addition to the ids), `images.json`
        (the images and classes that the ids stand for) and, with `drawn`, `pictures/`: the images with boxes drawn in,
        under their names. All of it or nothing.

        Args:
            images: an image, or a folder of images.
            out: folder to write to; there must be no earlier detections in it.
            min_score: detections below are left out.
            drawn: draw the detections from this score on, None for no pictures.

        Returns:
            Number of images and of detections.

        Raises:
            UserError: no images, one that cannot be read, a bound that is no score, or `out` holds something or cannot
                be written.
        """
        check_score(min_score)
        images, out = Path(images), Path(out)
        check_free(out)
        with staged_folder(out) as folder:
            base, files = image_files(images)
            for file in files:
                if any("\ud800" <= letter <= "\udfff" for letter in str(file.relative_to(base))):
                    raise UserError(f"{str(file)!a}: the name is not UTF-8, so no JSON can hold it. Rename the file.")
                if drawn is not None and len(os.fsencode(file.name)) > LONGEST_NAME:
                    raise UserError(f"{file}: the name is too long for a picture. Rename the file, or draw none.")
            listed, detections = [], []
            for number, file in enumerate(files, start=1):
                name = file.relative_to(base).as_posix()
                found = self.predict(file)
                width, height = found.size
                listed.append({"id": number, "file_name": name, "width": width, "height": height})
                for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
                    if score >= min_score:
                        category = self.categories[label]
                        entry = {
                            "image_id": number,
                            "category_id": category["id"],
                            "bbox": box.tolist(),
                            "score": float(score),
                        }
                        detections.append({**entry, "file_name": name, "category": category["name"]})
                if drawn is not None:
                    classes = [str(category["name"]) for category in self.categories]
                    shown = found.scores >= drawn
                    content = draw(file, found.boxes[shown], found.scores[shown], found.labels[shown], classes)
                    write_bytes(folder / "pictures" / name, content)
            write_bytes(folder / "images.json", msgspec.json.encode({"images": listed, "categories": self.categories}))
            write_bytes(folder / "detections.json", msgspec.json.encode(detections))
        return len(files), len(detections)


def image_files(images: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the images: the one that was given, or all in a folder.

    Raises:
        UserError: there is no image.
    """
    if images.is_file() and images.suffix.lower() in SUFFIXES:
        return images.parent, [images]
    if not images.is_dir():
        problem = "not an image" if images.is_file() else "no such file or folder"
        raise UserError(f"{images}: {problem}. Give an image ({', '.join(SUFFIXES)}) or a folder of images.")
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{images} holds no images ({', '.join(SUFFIXES)}).")
    return images, files


def load_scored(run: RunFolder, record: Result, device: str = "cpu", *, trust: bool = False) -> Predictor:
    """The teacher that the scores of a finished run are of.

    Args:
        run: its folder.
        record: its record.
        device, trust: as of `load_predictor`.

    Raises:
        UserError: the last checkpoint is missing or damaged, or as of `load_predictor`.
    """
    last = run.checkpoints / f"iter_{record.key.batches}.pth"
    predictor = load_predictor(run.path, device=device, trust=trust)
    if predictor.checkpoint != last:
        raise UserError(
            f"{last} is missing or damaged, but the scores are of that checkpoint. Move {run.record} away and run "
            f"the same command again: it resumes from {predictor.checkpoint.name} and makes both anew."
        )
    return predictor


def load_predictor(run: Path, checkpoint: Path | None = None, device: str = "cpu", *, trust: bool = False) -> Predictor:
    """The teacher of a run. Nothing that the run folder holds is executed, unless it is trusted.

    Args:
        run: its folder.
        checkpoint: one of its checkpoints, None for the newest.
        device: "cpu" or "cuda".
        trust: execute what the run brings along: the source of its own method, modules that it imports.

    Raises:
        UserError: no run there, no checkpoint that can be used, one of another run, or a run that has to be trusted.
    """
    folder = RunFolder(run)
    if not folder.config.is_file() or not folder.validation_images.is_file():
        raise UserError(f"{run}: no run folder. Give the folder that `cissod-bench run` wrote.")
    checkpoint = newest_checkpoint(folder) if checkpoint is None else given_checkpoint(checkpoint)
    text = read_config(checkpoint)
    found = differences(text, folder.config_text())
    if found:
        raise UserError(f"{checkpoint} belongs to another run than {run}: {show(found)}. Give that run's folder.")
    settings = in_todays_terms(parse_config(text))
    if not trust and (code := foreign_code(settings)):
        raise UserError(
            f"{run}: the run needs {', '.join(code[:3])}{', ...' if len(code) > 3 else ''}, which is not part of this "
            "package and would be executed. If you know where the run comes from, add --trust (trust=True in Python)."
        )
    config = Config(settings)
    for module in config.get("custom_imports", {}).get("imports", ()):
        if not module.startswith("cissod_bench."):  # an installed method's; ours are here, whatever they were called
            importlib.import_module(module)
    if "method_file" in config.model:
        config.model.method_file = str(folder.method)  # the run folder may have been moved
    with own_instances(), DefaultScope.overwrite_default_scope("mmdet"), preserved_randomness():
        model = MODELS.build(config.model)
    state = load_checkpoint(checkpoint)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{checkpoint}: the weights are of another model ({str(error).splitlines()[-1]}).") from error
    if any(hook.get("pcb") for hook in config.custom_hooks):
        warnings.warn(
            "The run calibrated its scores by prototypes of its labelled images, which are not in the checkpoint: "
            "these detections are without calibration.",
            stacklevel=2,
        )
    categories = run_categories(folder, model.teacher.roi_head.bbox_head.num_classes)
    return Predictor(model.teacher.to(device).eval(), config, categories, checkpoint)


class _Category(msgspec.Struct):
    id: int
    name: str


class _ImageList(msgspec.Struct):
    categories: list[_Category]


def run_categories(folder: RunFolder, count: int) -> list[dict[str, Any]]:
    """`id` and `name` of the classes of a run, in label order.

    Raises:
        UserError: the list of validation images, which has them, is damaged or of other classes.
    """
    path = folder.validation_images
    try:
        content = read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    found = decode_json(content, _ImageList, name=path).categories
    if len(found) != count:
        raise UserError(f"{path} has {len(found)} classes, and the detector {count}. Run it again.")
    return [msgspec.structs.asdict(category) for category in found]


def foreign_code(settings: dict[str, Any]) -> list[str]:
    """What would be executed if a configuration were built, and is neither of this package nor of mmdet.

    A component's `type` may be the path of anything that can be imported, whose call gets the other entries.
    """
    imports = [str(name) for name in (settings.get("custom_imports") or {}).get("imports", ())]
    found = [f"module {name}" for name in imports if not name.startswith("cissod_bench.")]
    if settings["model"].get("method_file"):
        found.append("its own method.py")
    for part in dictionaries_in((settings["model"], settings["test_dataloader"]["dataset"]["pipeline"])):
        kind = part.get("type")
        if "_scope_" in part:
            found.append(f"scope {part['_scope_']}")
        if isinstance(kind, str) and "." in kind and not _own_class(kind):
            found.append(kind)
    return found


def dictionaries_in(value: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries below."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from dictionaries_in(inner)


def _own_class(path: str) -> bool:
    """Whether a path names a class that this package defines; a function of it might write files."""
    module, _, name = path.rpartition(".")
    if not module.startswith("cissod_bench."):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("cissod_bench.")


def newest_checkpoint(folder: RunFolder) -> Path:
    """The newest checkpoint of a run that can be used, with a warning of damaged ones that are newer.

    Raises:
        UserError: there is none.
    """
    checkpoint, damaged = newest_readable(folder.checkpoints)
    if checkpoint is None:
        raise UserError(
            f"{folder.path}: no checkpoint in it. Run it again (a finished run without its {folder.record.name}), or "
            "give another run."
        )
    for path in damaged:
        warnings.warn(f"{path} is damaged; using {checkpoint}.", stacklevel=3)
    return checkpoint


def given_checkpoint(checkpoint: Path) -> Path:
    """The checkpoint that the user named.

    Raises:
        UserError: it cannot be used.
    """
    if not checkpoint.is_file():
        raise UserError(f"--checkpoint {checkpoint}: no such file.")
    if not is_whole(checkpoint):
        raise UserError(f"--checkpoint {checkpoint}: damaged, or no checkpoint. Give another one of the run.")
    return checkpoint


def check_free(out: Path) -> None:
    """Refuse an output folder whose place no other folder can take.

    Raises:
        UserError: it holds something, is none, or is a mount point.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Give a folder.")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty. Give another folder.")
    if out.is_mount():
        raise UserError(f"--out {out}: is a mount point. Give a folder in it.")
