"""Doubts about detections: of other forms, of two scales, and of lists that were written twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.evaluation.doubts import doubts
from cissod_bench.evaluation.inputs import Detections, read_detections, read_ground_truth
from cissod_bench.synthetic import shapes


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("truth")
    shapes.generate("shapes", folder, 0, train_images=1, val_images=40)
    return read_ground_truth(folder / "val.json")


def found(truth: Any, **changes: Any) -> Detections:
    """A detection on every object, with different scores."""
    columns = {
        "box_image": truth.box_image, "box_class": truth.box_class, "boxes": truth.boxes,
        "scores": np.linspace(0.01, 0.99, len(truth.boxes)), **changes,
    }  # fmt: skip
    return Detections(**columns)


def test_usual_detections_raise_none(truth: Any) -> None:
    assert doubts(found(truth), truth) == []
    none = read_detections([], truth)
    assert doubts(none, truth) == []
    assert doubts(found(truth, scores=100 * found(truth).scores), truth) == [
        f"{int((found(truth).scores > 0.01).sum())} of {len(truth.boxes)} scores are above 1 and others below: are all "
        "on one scale?"
    ]
    assert doubts(found(truth, scores=1 + found(truth).scores), truth) == [], "AP goes by the order of scores"


def test_other_forms_are_told(truth: Any) -> None:
    x, y, width, height = truth.boxes.T
    corners = np.stack([x, y, x + width, y + height], axis=1)
    assert doubts(found(truth, boxes=corners), truth) == [
        "The boxes look like x1, y1, x2, y2: COCO's results have x, y, width and height."
    ]
    assert "normalised to 0..1" in "".join(doubts(found(truth, boxes=truth.boxes / 128), truth))
    scores = found(truth).scores.copy()
    scores[0] = 97.5
    assert doubts(found(truth, scores=scores), truth) == [
        f"1 of {len(scores)} scores are above 1 and others below: are all on one scale?"
    ]


@pytest.mark.parametrize("times", [2, 3])
def test_a_list_written_twice_is_told(truth: Any, times: int) -> None:
    one = found(truth)
    number = len(one.scores)
    rows = np.tile(np.arange(number), times)
    assert doubts(one.chosen(rows), truth) == [
        f"{(times - 1) * number} of {times * number:,} detections come twice (image, class, box and score alike)."
    ]
    other = np.concatenate([one.scores, one.scores + 1e-9])
    twice = one.chosen(np.tile(np.arange(number), 2))
    assert doubts(Detections(twice.box_image, twice.box_class, twice.boxes, other), truth) == []


def test_the_command_says_them(truth: Any, tmp_path: Path, write: Any) -> None:
    boxes = zip(truth.box_image.tolist(), truth.box_class.tolist(), truth.boxes.tolist(), strict=True)
    entries = [{"image_id": i, "category_id": c, "bbox": box, "score": 0.5} for i, c, box in boxes]
    given = ["eval", "--task", "shapes", "--annotations", str(truth.path), "--predictions"]
    file = str(write("dt.json", entries * 2))
    assert "come twice" in " ".join(CliRunner().invoke(app, [*given, file]).output.split())
    assert json.loads(CliRunner().invoke(app, [*given, file, "--json"]).output)["doubts"]
