"""Diagnostics over time: class weights, thresholds, gradient ratios, and the quality of pseudo labels.

They go to `observables.jsonl` in the run folder, one JSON object per interval, and as group means to mmengine's logging
backends. Precision and recall of pseudo labels need the hidden annotations of D_u and cover the images of the main
process. They never flow back into training.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from cissod_bench.evaluation.pseudo_labels import count_matches, precision_recall_of_groups, read_hidden_labels
from cissod_bench.ssod.hooks.iteration import model_of

OBSERVABLES = "observables.jsonl"


class DiagnosticsHook(Hook):
    """Logs the diagnostics of a method's components and the quality of the pseudo labels.

    A loss, refinement or hook with per-class values to log has a method `diagnostics()` that returns them by name, as
    (n,) or (n + 1,) tensors. It is called in the main process only, so it must not communicate with other ranks.

    Args:
        interval: iterations between two lines.
        out_dir: run folder.
        classes: class names in label order.
        groups: class names of each group.
        hidden: full training annotations; None for no precision and recall.
    """

    def __init__(
        self,
        interval: int,
        out_dir: str,
        classes: Sequence[str],
        groups: Mapping[str, Sequence[str]],
        hidden: str | None = None,
    ) -> None:
        self.interval, self.file = interval, Path(out_dir) / OBSERVABLES
        self.groups = {name: [list(classes).index(member) for member in members] for name, members in groups.items()}
        self.num_classes = len(classes)
        self.hidden = read_hidden_labels(Path(hidden), tuple(classes)) if hidden else None
        self._counts = np.zeros((3, self.num_classes), dtype=np.int64)
        self._waiting: list[tuple[int, torch.Tensor]] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the pseudo labels of the iteration; write a line if one is due."""
        model = model_of(runner)
        done = runner.iter + 1
        if model.view is not None and self.hidden is not None:
            for sample, found in zip(model.view.samples, model.view.pseudo, strict=True):
                if sample.img_id not in self.hidden.images:
                    continue
                above = (found.scores > model.view.thresholds[found.labels]).to(found.scores.dtype)
                columns = torch.stack([found.labels.to(found.scores.dtype), found.scores, above], dim=1)
                self._waiting.append((sample.img_id, torch.cat([found.bboxes, columns], dim=1)))
        if done % self.interval == 0 or done == runner.max_iters:
            self._count()
            if is_main_process():
                self._write(runner, model, done)
            self._counts[:] = 0

    def _count(self) -> None:
        """Match the pseudo labels kept on the device, with one transfer per interval."""
        if self.hidden is None or not self._waiting:
            return
        table = torch.cat([rows for _, rows in self._waiting]).double().cpu().numpy()
        ends = np.cumsum([len(rows) for _, rows in self._waiting])
        for (image, _), rows in zip(self._waiting, np.split(table, ends[:-1]), strict=True):
            rows = rows[rows[:, 6] > 0]
            true_boxes = self.hidden.boxes.get(image, np.empty((0, 4)))
            true_labels = self.hidden.labels.get(image, np.empty(0, dtype=np.int64))
            labels = rows[:, 4].astype(np.int64)
            self._counts += count_matches(rows[:, :4], labels, rows[:, 5], true_boxes, true_labels, self.num_classes)
        self._waiting = []

    def _write(self, runner: Any, model: Any, done: int) -> None:
        line: dict[str, Any] = {"step": done}
        line |= _diagnostics(model.loss_cls)
        if model.view is not None:
            line["thresholds"] = _numbers(model.view.thresholds)
        for part in (model.refinement, *runner.hooks):
            line |= _diagnostics(part)
        for name in [name for name in line if name != "step"]:
            for group, members in self.groups.items():
                known = [line[name][label] for label in members if line[name][label] is not None]
                if known:
                    runner.message_hub.update_scalar(f"train/{name}_{group}", float(np.mean(known)))
        if self.hidden is not None:
            line["pseudo_labels"] = dict(zip(("right", "given", "annotated"), self._counts.tolist(), strict=True))
            for group, values in precision_recall_of_groups(self._counts, self.groups).items():
                for name, value in zip(("precision", "recall"), values, strict=True):
                    if not np.isnan(value):
                        runner.message_hub.update_scalar(f"train/pseudo_{name}_{group}", value)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the counts of the current interval."""
        self._count()
        checkpoint["observables"] = self._counts.copy()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the counts."""
        if runner._resume and "observables" in checkpoint:
            self._counts = checkpoint["observables"].copy()


def _diagnostics(part: Any) -> dict[str, list[float | None]]:
    """The diagnostics of a component, if it has any."""
    found = part.diagnostics() if hasattr(part, "diagnostics") else {}
    return {name: _numbers(values) for name, values in found.items()}


def _numbers(values: torch.Tensor) -> list[float | None]:
    """Values for JSON, which has neither infinity nor NaN."""
    return [round(value, 5) if np.isfinite(value) else None for value in values.double().cpu().tolist()]
