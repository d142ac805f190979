"""Training images that cannot be read: replaced by a fixed rule, counted and named, and too many of them end the run.

Rule: the draw gets the next image of the same source (D_l or D_u) in the order of the split's file, with the same
augmentation seed; after the last comes the first. It depends on nothing but the files, so every run of the same data
replaces the same images. A teacher inference pass (`teacher_inference.py`) finds nothing in a damaged one.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook

from cissod_bench.errors import UserError
from cissod_bench.io import read_regular
from cissod_bench.ssod.data.jpeg import breaks_off, has_end, size_of

DARK = 2**14
"""Values of 16 bits that stay below become less than 64 of 255, those of 12 bits less than 16."""
TAIL = 65536
"""Bytes before the end of a file in which its end mark is looked for first."""
_TIFF = (b"II*\0", b"MM\0*")
_JPEG, _PNG = b"\xff\xd8", b"\x89P"
_ENDS = {_JPEG: b"\xff\xd9", _PNG: b"IEND"}
_PNG_END = b"IEND\xaeB`\x82"  # with its checksum


class DamagedImage(Exception):
    """An image file that does not hold a whole image; the message names it and says why."""


class WrongSize(Exception):
    """An image that has another size than its annotations say; the message names it with both sizes."""


class LoadWholeImage:
    """Reads `img_path` as a BGR uint8 array, (H, W, 3); JPEG and PNG files of which a part is missing are refused.

    OpenCV fills up what is missing of a JPEG with grey and says nothing; of other formats it refuses it by itself. What
    follows the image in its file, such as the video of a phone's photograph, does not matter.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Put the image and its shape into `results`.

        Raises:
            DamagedImage: the file is empty, no image, cut off, too large, a JPEG of one scan whose data ends too early,
                or has 16 bits a value and uses a quarter of their range at most.
            WrongSize: `width` and `height` of the annotations, where `results` has them, are others.
        """
        path = results["img_path"]
        content = read_regular(Path(path))
        end = _ENDS.get(content[:2])
        if end is not None and end not in content[-TAIL:]:
            whole = has_end(content) if content[:2] == _JPEG else _PNG_END in content
            if not whole:
                raise DamagedImage(f"{path}: the file is cut off.")
        try:
            image = mmcv.imfrombytes(content, flag="color") if content else None
        except cv2.error:  # OpenCV's limits
            raise DamagedImage(f"{path}: {_too_large(content)}.") from None
        if image is None:
            raise DamagedImage(f"{path}: {'not an image' if content else 'an empty file'}.")
        if (most := _largest_of_16_bits(content)) is not None and 0 < most < DARK:
            raise DamagedImage(
                f"{path}: 16 bits a value, of which the largest is {most}; in the 8 bits that detectors take the image "
                "would be almost black. Scale the values and write it with 8 bits."
            )
        if content[:2] == _JPEG and breaks_off(content, image):
            raise DamagedImage(f"{path}: a part of the image is missing.")
        annotated = results.get("width") or 0, results.get("height") or 0
        if min(annotated) > 0 and annotated != image.shape[1::-1]:
            raise WrongSize(
                f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but {annotated[0]} x {annotated[1]} in the "
                "annotations. Bring images and boxes to the same size and orientation."
            )
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _too_large(content: bytes) -> str:
    """Why OpenCV refuses an image."""
    width, height = size_of(content)
    return f"{width} x {height} pixels are more than OpenCV's limit (2^20 a side, 2^30 in all)"


def _largest_of_16_bits(content: bytes) -> int | None:
    """The largest value of an image of 16 bits a value (PNG or TIFF), None for other images."""
    png = content[:2] == _PNG and content[24:25] == b"\x10"
    if not png and content[:4] not in _TIFF:
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    return int(np.atleast_3d(pixels)[:, :, :3].max())  # without transparency


class DamagedImagesHook(Hook):
    """Counts replaced samples and images skipped by inference passes; stops a run with too many damaged images.

    Args:
        damaged_limit: damaged images from which on nobody should train on the data; this number is still accepted.
    """

    def __init__(self, damaged_limit: int) -> None:
        self.limit = damaged_limit
        self._draws: Counter[str] = Counter()
        self._new: Counter[str] = Counter()

    def before_run(self, runner: Any) -> None:
        """Let the run's record have the counts."""
        runner.damaged_images = lambda: dict(sorted(self._draws.items()))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the replaced images of the batch."""
        for branch, samples in data_batch["data_samples"].items():
            for sample in samples if branch != "unsup_student" else ():  # the same images as the teacher's
                for message in () if sample is None else sample.metainfo.get("damaged", ()):
                    self._note(runner, message, f"Replaced by {sample.img_path}, now and at each later draw.")

    def after_inference_batch(self, runner: Any, done: int, damaged: list[str]) -> None:
        """Note the damaged images of a batch of an inference pass."""
        for message in damaged:
            self._note(runner, message, "Nothing is found in it; a draw of it gets the next image.")

    def _note(self, runner: Any, message: str, consequence: str) -> None:
        name = message.partition(": ")[0]
        if name not in self._draws and name not in self._new:
            runner.logger.warning(f"{message} {consequence}")
        self._new[name] += 1
        self._check()

    def before_checkpoint(self, runner: Any) -> None:
        """Bring the counts of all ranks together."""
        found, self._new = self._new, Counter()
        for counts in all_gather_object(found):
            self._draws.update(counts)
        self._check()

    def _check(self) -> None:
        names = sorted(self._draws | self._new)
        if len(names) > self.limit:
            raise UserError(
                f"{len(names)} training images cannot be read, among them {', '.join(names[:3])}; the limit is "
                f"{self.limit}. Replace them, or raise --damaged-images."
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the counts."""
        checkpoint["damaged_images"] = dict(self._draws)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        if runner._resume:
            self._draws = Counter(checkpoint["damaged_images"])


def mark(item: dict[str, Any], messages: list[str]) -> None:
    """Write into the samples of an item which images it stands for."""
    for sample in filter(None, item["data_samples"].values()):  # branches of the other source are None
        sample.set_metainfo({"damaged": tuple(messages)})


def next_of_source(index: int, ends: list[int]) -> int:
    """The image after `index` in its source.

    Args:
        index: position in the sources behind each other.
        ends: for each source the position behind its last image.
    """
    source = int(np.searchsorted(ends, index, side="right"))
    start = ends[source - 1] if source else 0
    return index + 1 if index + 1 < ends[source] else start
