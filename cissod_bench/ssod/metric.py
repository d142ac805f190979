"""Group AP inside mmengine's evaluation loops: the same code as `cissod-bench eval`, fed by the model."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from mmengine.evaluator import BaseMetric

from cissod_bench.coco.names import clean_name
from cissod_bench.evaluation.groups import evaluate, save_evaluation
from cissod_bench.evaluation.inputs import read_ground_truth
from cissod_bench.io import write_bytes


class GroupAP(BaseMetric):
    """Collects detections, writes them in COCO's results format and scores them per class and group.

    Args:
        ann_file: annotations to evaluate against.
        classes: names of the classes in label order.
        groups: class names of each group.
        evaluator: backend, see `cissod_bench.evaluation`.
        max_detections: detections per image to score.
        out_dir: folder for `detections.json` and `per_class.npz`.
        lvis: LVIS's federated rules instead of COCO's.
    """

    def __init__(
        self,
        ann_file: str,
        classes: Sequence[str],
        groups: Mapping[str, Sequence[str]],
        evaluator: str,
        max_detections: int,
        out_dir: str,
        lvis: bool = False,
    ) -> None:
        super().__init__(
            collect_device="gpu"
        )  # gathers through the process group, gloo included; "cpu" would write files
        self.out_dir = Path(out_dir)
        self.groups = {name: tuple(members) for name, members in groups.items()}
        self.evaluator, self.max_detections = evaluator, max_detections
        self.classes, self.lvis = tuple(classes), lvis
        self.truth = read_ground_truth(Path(ann_file), lvis=lvis)  # once for all evaluations of the run
        id_of = dict(zip(self.truth.class_names, self.truth.class_ids.tolist(), strict=True))
        # Match classes by name: the validation file may number them differently from the training file.
        self.category_ids = np.array([id_of[clean_name(name)] for name in classes])

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the detections of some images, in pixels of the original image."""
        for sample in data_samples:
            found = sample["pred_instances"]
            boxes = found["bboxes"].cpu().numpy()
            boxes[:, 2:] -= boxes[:, :2]
            labels, scores = found["labels"].cpu().numpy(), found["scores"].cpu().numpy()
            self.results.append((sample["img_id"], (labels, scores, boxes)))

    def evaluate(self, size: int) -> dict[str, float]:
        """Score what all processes found.

        Args:
            size: not used. Some images are given out twice, so that all processes have equally many, and mmengine
                would cut off what comes after `size` results, as if those were the last.
        """
        metrics: dict[str, float] = super().evaluate(sys.maxsize)
        return metrics

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Write detections and arrays; return `group/metric` -> value, without undefined metrics."""
        detections = [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, (labels, scores, boxes) in sorted(dict(results).items())
            for category, score, box in zip(
                self.category_ids[labels].tolist(), scores.tolist(), boxes.tolist(), strict=True
            )
        ]
        write_bytes(self.out_dir / "detections.json", msgspec.json.encode(detections))
        evaluation = evaluate(
            self.truth,
            detections,
            self.groups,
            classes=self.classes,
            evaluator=self.evaluator,
            max_detections=self.max_detections,
            lvis=self.lvis,
        )
        save_evaluation(self.out_dir / "per_class.npz", evaluation)
        return {
            f"{group}/{metric}": value
            for group, row in evaluation.metrics().items()
            for metric, value in row.items()
            if value is not None
        }
