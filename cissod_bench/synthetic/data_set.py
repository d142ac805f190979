"""Write drawn images as a data set in COCO form."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cissod_bench.errors import UserError
from cissod_bench.io import canonical_json, staged_folder, write_text
from cissod_bench.synthetic.scenes import SIZE, Pixels


def write_data_set(
    folder: Path,
    title: str,
    classes: Sequence[str],
    parts: Mapping[str, int],
    draw: Callable[[str, int], tuple[Pixels, list[dict[str, Any]]]],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the images of every part, and write them and the COCO file of the part.

    Args:
        folder: must not exist, or be empty; it appears whole or not at all.
        title: description of a part, with {} in the place of its name.
        classes: names in the order of their category ids.
        parts: name of a part -> number of images.
        draw: makes an image and its annotations of a part and a number, counted from 1.
        progress: called after every image with the number of images written and the total.

    Raises:
        UserError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder. Name a folder that does not exist yet.")
    done, total = 0, sum(parts.values())
    with staged_folder(folder, sync=False) as staging:  # made again at any time
        for part, count in parts.items():
            (staging / part).mkdir()
            records = []
            for number in range(1, count + 1):
                pixels, boxes = draw(part, number)
                Image.fromarray(pixels).save(staging / part / _file_name(number))
                records.append(boxes)
                done += 1
                if progress:
                    progress(done, total)
            write_text(staging / f"{part}.json", canonical_json(_coco(title.format(part), classes, records)) + "\n")


def _file_name(number: int) -> str:
    return f"{number:06d}.png"


def _coco(title: str, classes: Sequence[str], records: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The COCO file of one part: ids count from 1, boxes are whole pixels `[x, y, width, height]`."""
    annotations: list[dict[str, Any]] = []
    for number, boxes in enumerate(records, start=1):
        for record in boxes:
            annotations.append(record | {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0})
    return {
        "info": {"description": f"cissod-bench {title}", "version": "1"},
        "images": [
            {"id": number, "file_name": _file_name(number), "height": SIZE, "width": SIZE}
            for number in range(1, len(records) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for place, name in enumerate(classes, start=1)],
    }
