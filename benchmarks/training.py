"""Steps per second of stock mmdet `SoftTeacher` and of the frame, side by side in one process.

    python benchmarks/training.py                    on a GPU: R50-FPN, 1 + 4 images of 1333 x 800, 30 steps each
                                                     on a CPU: the same with images of 320 x 192, 6 steps (minutes)
    python benchmarks/training.py --compile --steps 100 --json figures.json

All variants have the same first weights and see the same batches of random images, in turn, step by step. Thresholds
are set so that each image has about ten pseudo labels. A step is everything but the loader: normalising and padding,
losses, backward, optimiser, moving average, and reading losses for the log (stock: in every step, as mmengine does; the
frame: every 50 steps).

A second table says where the time of a step goes, with the device waited for around each part, so that the parts are
slower than the whole. A third one counts what a step launches, copies and waits for: on a pretended device
(`cissod_bench/ssod/fake_device.py`) everywhere, and by PyTorch's profiler where there is a GPU.
"""

import argparse
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from cissod_bench.ssod import fake_device as pretended
from cissod_bench.ssod.component import component
from cissod_bench.ssod.hooks.compiled import compile_features
from cissod_bench.ssod.model.sync_free_ops import keep_anchors_on
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.ssod.precision import FrameOptimWrapper
from cissod_bench.ssod.thresholds import FixedThreshold
from cissod_bench.training.detectors import SOFT_TEACHER, get_detector

CLASSES, LABELED, UNLABELED, LOG_INTERVAL, PSEUDO = 80, 1, 4, 50, 10
PARTS = ("data", "forward teacher", "forward student", "method", "backward", "optimiser", "EMA", "log")


def build(kind: str, detector: str, thresholds: dict[str, float]) -> Any:
    """Stock `SoftTeacher` or the frame, on the host."""
    model = get_detector(detector).model(CLASSES, 100)
    parts: dict[str, Any] = {"cls_pseudo_thr": thresholds["rpn_pseudo_thr"]} if kind == "SoftTeacher" else {}
    options: dict[str, Any] = {} if kind == "SoftTeacher" else {
        "threshold": component(FixedThreshold, value=thresholds["rpn_pseudo_thr"])
    }  # fmt: skip
    return MODELS.build(
        ConfigDict(
            component(TeacherStudent) if kind == "TeacherStudent" else {"type": kind},
            detector=model,
            data_preprocessor={
                "type": "MultiBranchDataPreprocessor",
                "data_preprocessor": {**model["data_preprocessor"], "non_blocking": kind != "SoftTeacher"},
            },
            semi_train_cfg={**SOFT_TEACHER, **thresholds, **parts},
            semi_test_cfg={"predict_on": "teacher"},
            **options,
        )
    ).train()


def batch(seed: int, width: int, height: int) -> dict[str, Any]:
    """One loader batch: (3, H, W) uint8 images with seven boxes each, by branch, as collated by mmengine."""
    numbers = np.random.default_rng(seed)
    none = [None] * (LABELED + UNLABELED)
    inputs, samples = ({name: list(none) for name in ("sup", "unsup_teacher", "unsup_student")} for _ in range(2))
    for index in range(LABELED + UNLABELED):
        for name in ("sup",) if index < LABELED else ("unsup_teacher", "unsup_student"):
            image = torch.from_numpy(numbers.integers(0, 256, (3, height, width), dtype=np.uint8))
            inputs[name][index] = image.pin_memory() if torch.cuda.is_available() else image
            corner = numbers.uniform(0, 0.7, (7, 2)) * (width, height)
            side = numbers.uniform(0.05, 0.3, (7, 2)) * (width, height)
            shape = (height, width)
            samples[name][index] = DetDataSample(
                metainfo={
                    "img_shape": shape,
                    "ori_shape": shape,
                    "scale_factor": (1.0, 1.0),
                    "homography_matrix": np.eye(3, dtype=np.float32),
                },
                gt_instances=InstanceData(
                    bboxes=torch.tensor(np.hstack([corner, corner + side]), dtype=torch.float32),
                    labels=torch.tensor(numbers.integers(0, CLASSES, 7)),
                ),
            )
    return {"inputs": inputs, "data_samples": samples}


def first_weights(detector: str, example: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Weights of an untrained detector that finds objects, and thresholds at which some of them are pseudo labels."""
    torch.manual_seed(0)
    low = {"pseudo_label_initial_score_thr": 0.05, "rpn_pseudo_thr": 0.05, "reg_pseudo_thr": 0.5}
    model = build("TeacherStudent", detector, low)
    model.init_weights()
    head = model.student.roi_head.bbox_head
    first = head.fc_cls.weight.detach().clone()
    data = model.data_preprocessor(example, True)
    low, high = 2.0**-20, 2.0**20
    for _ in range(20):  # too small a factor, and nothing is found; too large a one, and all scores are 1
        factor = (low * high) ** 0.5
        with torch.no_grad():
            head.fc_cls.weight.copy_(factor * first)
            model.teacher.load_state_dict(model.student.state_dict())
            view = model.teacher_view(data["inputs"]["unsup_teacher"], data["data_samples"]["unsup_teacher"])
        scores = torch.cat([found.scores for found in view.detections]).sort(descending=True).values
        enough = len(scores) >= 3 * PSEUDO * UNLABELED
        if enough and scores[PSEUDO * UNLABELED] < 0.9:
            break
        low, high = (low, factor) if enough else (factor, high)
    rank = min(len(scores) - 1, PSEUDO * UNLABELED)
    threshold = {"pseudo_label_initial_score_thr": float(scores[min(len(scores) - 1, 2 * rank)]),
                 "rpn_pseudo_thr": float(scores[rank]), "reg_pseudo_thr": 0.5}  # fmt: skip
    return model.state_dict(), threshold


class Variant:
    """One way to train: a model with its optimiser, and a step of it.

    Attributes:
        seconds: of each timed step.
        parts: seconds by part of a step, filled by `step` while `parts` is a Counter.
        memory: peak of the step's memory above what lay there before, in MiB; 0 on a CPU.
    """

    def __init__(self, title: str, kind: str, options: argparse.Namespace, weights: Any, **changes: Any) -> None:
        self.title, self.device, self.stock = title, options.device, kind == "SoftTeacher"
        self.model = build(kind, options.detector, options.thresholds)
        self.model.load_state_dict(weights)
        if self.stock or changes.get("layout") == torch.contiguous_format:
            self.model.to(memory_format=torch.contiguous_format)
        else:
            self.model.to(memory_format=torch.channels_last)
        if options.device == pretended.NAME:
            pretended.move(self.model)
        else:
            self.model.to(options.device)
        if not self.stock:
            for detector in (self.model.student, self.model.teacher):
                keep_anchors_on(detector, torch.device(options.device, 0 if options.device != "cpu" else None))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        foreach = True if options.device == pretended.NAME else None
        optimizer = torch.optim.SGD(trained, lr=1e-5, momentum=0.9, weight_decay=1e-4, foreach=foreach)
        amp = changes.get("amp")
        device = "cpu" if options.device == pretended.NAME else options.device
        plain = self.stock and amp is None
        self.wrapper = OptimWrapper(optimizer) if plain else FrameOptimWrapper(amp, device, optimizer=optimizer)
        self.wrapper.initialize_count_status(self.model, 0, 10**9)
        if changes.get("compile"):
            compile_features(self.model)
        self.seconds: list[float] = []
        self.parts: Counter[str] | None = None
        self.memory, self._depth, self._done = 0.0, 0, 0
        self._watch_parts()

    def step(self, data: dict[str, Any]) -> float:
        """Train on one batch; returns its seconds."""
        torch.manual_seed(self._done)
        self.model.iteration = self._done
        before = self._now(wait=True)
        with self.wrapper.optim_context(self.model):
            ready = self._part("data", self.model.data_preprocessor)(data, True)
            losses = self._part("method", self.model.loss)(ready["inputs"], ready["data_samples"])
            loss, logs = self.model.parse_losses(losses)
        self.wrapper.update_params(loss)
        self._part("EMA", self._move_teacher)()
        self._part("log", self._log)(logs)
        self._done += 1
        return self._now(wait=True) - before

    def _move_teacher(self) -> None:
        teacher, student = self.model.teacher, self.model.student
        with torch.no_grad():
            if not self.stock:
                torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 0.001)
                return
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):  # MeanTeacherHook
                old.data.mul_(1 - 0.001).add_(new.data, alpha=0.001)

    def _log(self, logs: dict[str, torch.Tensor]) -> None:
        if self.stock or (self._done + 1) % LOG_INTERVAL == 0:
            for value in logs.values():
                value.item()

    def _watch_parts(self) -> None:
        teacher, student = self.model.teacher, self.model.student
        for part, owner, names in (
            ("forward teacher", teacher, ("extract_feat",)),
            ("forward teacher", teacher.rpn_head, ("predict",)),
            ("forward teacher", teacher.roi_head, ("predict", "predict_bbox", "_bbox_forward")),
            ("forward student", student, ("loss", "extract_feat")),
            ("forward student", student.rpn_head, ("loss_and_predict",)),
            ("forward student", student.roi_head, ("loss", "_bbox_forward")),
            ("backward", self.wrapper, ("backward",)),
            ("optimiser", self.wrapper, ("step", "zero_grad")),
        ):
            for name in names:
                setattr(owner, name, self._part(part, getattr(owner, name)))

    def _part(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """The action, timed where it is asked for; what is inside of "method" is taken off it."""

        def timed(*args: Any, **options: Any) -> Any:
            if self.parts is None or self._depth > 0:
                return action(*args, **options)
            self._depth = 0 if name == "method" else 1
            before, others = self._now(wait=True), sum(self.parts.values())
            result = action(*args, **options)
            self._depth = 0
            spent = self._now(wait=True) - before
            self.parts[name] += spent - (sum(self.parts.values()) - others)
            return result

        return timed

    def _now(self, wait: bool) -> float:
        if wait and self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(variants: list[Variant], batches: list[dict[str, Any]], steps: int) -> None:
    """Warm up, time the variants in turn, then split up a few steps."""
    for number in range(-2, steps):
        for variant in variants:
            if variant.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated() if variant.device == "cuda" else 0
            spent = variant.step(batches[number % len(batches)])
            if variant.device == "cuda":
                variant.memory = max(variant.memory, (torch.cuda.max_memory_allocated() - held) / 2**20)
            if number >= 0:
                variant.seconds.append(spent)
    for variant in variants:
        variant.parts = Counter()
        for number in range(3):
            variant.step(batches[number % len(batches)])


def counts(options: argparse.Namespace, weights: Any, example: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Launches, copies and waits of one step on the pretended device."""
    found: dict[str, dict[str, Any]] = {}
    there = argparse.Namespace(**{**vars(options), "device": pretended.NAME})
    for title, kind in (("stock", "SoftTeacher"), ("frame", "TeacherStudent")):
        with pretended.counting() as counted:
            variant = Variant(title, kind, there, weights)
            counters = {"launches": counted.launches, "copies": counted.copies, "waits": counted.waits}
            for counter in counters.values():
                counter.clear()
            variant.step(example)
            found[title] = {name: sum(counter.values()) for name, counter in counters.items()}
            found[title]["waits by place"] = dict(counted.waits.most_common())
    return found


def profiled(variant: Variant, example: dict[str, Any]) -> dict[str, int]:
    """Calls of the CUDA runtime in one step, by PyTorch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        variant.step(example)
    calls = {event.key: event.count for event in profile.key_averages() if event.key.startswith("cuda")}
    return {
        "launches": sum(count for name, count in calls.items() if "LaunchKernel" in name),
        "copies": sum(count for name, count in calls.items() if "Memcpy" in name),
        "waits": sum(count for name, count in calls.items() if name.endswith("Synchronize")),
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--detector", default="r50-fpn")
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="of images in pixels")
    parser.add_argument("--steps", type=int, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU")
    parser.add_argument("--amp", choices=("bf16", "fp16", "none"), help="default: fp16 on a GPU, none on a CPU")
    parser.add_argument("--compile", action="store_true", help="also with compiled backbone and neck")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    width, height = options.size or ((1333, 800) if on_gpu else (320, 192))
    steps = options.steps or (30 if on_gpu else 6)
    amp = {"none": None, None: "fp16" if on_gpu else None}.get(options.amp, options.amp)
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    batches = [batch(seed, width, height) for seed in range(4)]
    weights, options.thresholds = first_weights(options.detector, batches[0])

    counted = counts(options, weights, batches[0])  # first: PyTorch takes on no device after the first backward
    variants = [
        Variant("stock", "SoftTeacher", options, weights),
        Variant("frame, channels first", "TeacherStudent", options, weights, layout=torch.contiguous_format),
        Variant("frame (channels last)", "TeacherStudent", options, weights),
    ]
    if amp is not None:
        variants.append(Variant(f"stock, {amp}", "SoftTeacher", options, weights, amp=amp))
        variants.append(Variant(f"frame, {amp}", "TeacherStudent", options, weights, amp=amp))
    if options.compile:
        title = f"frame, {amp or 'fp32'}, compiled"
        variants.append(Variant(title, "TeacherStudent", options, weights, amp=amp, compile=True))
    measure(variants, batches, steps)
    if on_gpu:
        for variant in variants:
            counted[f"{variant.title}, profiler"] = profiled(variant, batches[0])

    medians = [statistics.median(variant.seconds) for variant in variants]
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.detector}, 1 + 4 images of {width} x {height}, {steps} steps each in turn, {where}\n")
    rows = [
        [variant.title, f"{1 / median:.2f}", f"{1000 * median:.0f}", f"{medians[0] / median:.2f}",
         f"{variant.memory:.0f}" if on_gpu else "–"]
        for variant, median in zip(variants, medians, strict=True)
    ]  # fmt: skip
    print(table(["", "steps/s", "ms a step (median)", "times stock", "peak MiB"], rows), end="\n\n")
    shares = [{part: 1000 * (variant.parts or Counter())[part] / 3 for part in PARTS} for variant in variants]
    rows = [[variant.title, *(f"{share[part]:.0f}" for part in PARTS)]
            for variant, share in zip(variants, shares, strict=True)]  # fmt: skip
    print(table(["ms of a step", *PARTS], rows), end="\n\n")
    rows = [[title, *(str(found[name]) for name in ("launches", "copies", "waits"))]
            for title, found in counted.items()]  # fmt: skip
    print(table(["a step", "launches", "copies", "host waits"], rows))
    if options.json:
        figures = {
            "where": where,
            "detector": options.detector,
            "size": [width, height],
            "steps": steps,
            "torch": torch.__version__,
            "counts": counted,
            "variants": [
                {"title": each.title, "seconds": each.seconds, "parts_ms": share, "peak_mib": each.memory}
                for each, share in zip(variants, shares, strict=True)
            ],
        }
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
