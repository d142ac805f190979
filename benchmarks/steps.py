"""Training steps to be measured: the same batches and weights for stock mmdet `SoftTeacher` and for the framework."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

from cissod_bench.ssod import fake_device
from cissod_bench.ssod.component import component
from cissod_bench.ssod.hooks.compiled import compile_features
from cissod_bench.ssod.model.teacher_student import TeacherStudent
from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper, products_in
from cissod_bench.ssod.thresholds import FixedThreshold
from cissod_bench.training.recipes.detectors import SOFT_TEACHER, get_detector

CLASSES, LABELED, UNLABELED, LOG_INTERVAL, PSEUDO = 80, 1, 4, 50, 10
PARTS = ("data", "forward teacher", "forward student", "method", "backward", "optimiser", "EMA", "log")


def build(kind: str, detector: str, thresholds: dict[str, float], padding: int = 32) -> Any:
    """Stock `SoftTeacher` or the framework, on the host."""
    model = get_detector(detector).model(CLASSES, 100)
    model["data_preprocessor"]["pad_size_divisor"] = padding
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


def first_weights(detector: str, example: dict[str, Any], device: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Weights of an untrained detector that finds objects, and thresholds at which some of them are pseudo labels."""
    torch.manual_seed(0)
    low = {"pseudo_label_initial_score_thr": 0.05, "rpn_pseudo_thr": 0.05, "reg_pseudo_thr": 0.5}
    model = build("TeacherStudent", detector, low)
    model.init_weights()
    model.to(device)
    head = model.student.roi_head.bbox_head
    first = head.fc_cls.weight.detach().clone()
    data = model.data_preprocessor(example, True)
    low, high = 2.0**-20, 2.0**20
    for _ in range(20):  # too small a factor, and nothing is found; too large a one, and all scores are 1
        factor = (low * high) ** 0.5
        with torch.no_grad(), products_in("fp32"):
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
    return {name: value.cpu() for name, value in model.state_dict().items()}, threshold


def detection_batch(model: Any, example: dict[str, Any], images: int) -> tuple[torch.Tensor, list[DetDataSample]]:
    """(B, 3, H, W) images of a loader batch as the teacher gets them, taken again if there are too few, and samples."""
    data = model.data_preprocessor(example, True)
    inputs, samples = (data[name]["unsup_teacher"] for name in ("inputs", "data_samples"))
    chosen = [index % len(samples) for index in range(images)]
    return inputs[chosen], [samples[index] for index in chosen]


class Variant:
    """One way to train: a model with its optimiser, and a step of it.

    Args:
        title: name in tables.
        kind: "SoftTeacher" for stock mmdet, "TeacherStudent" for the framework.
        detector: name of a preset.
        weights, thresholds: as `first_weights` gives them.
        device: "cuda", "cpu", or the fake device inside of `fake_device.counting`.
        precision: "fp32", "tf32", "bf16", "fp16", or "default" for what PyTorch does when nobody says anything.
        channels_last: layout of convolutions; stock has channels first.
        compile: compile backbone and neck.
        padding: sides of padded images are multiples of this.
        fused: let cuDNN do a convolution with what follows it.

    Attributes:
        blocks: (seconds, steps) of each timed block.
        parts: seconds by part of a step, filled by `step` while `parts` is a Counter.
        memory: peak of the step's memory above what lay there before, in MiB; 0 on a CPU.
    """

    def __init__(
        self,
        title: str,
        kind: str,
        detector: str,
        weights: dict[str, Any],
        thresholds: dict[str, float],
        device: str,
        precision: str = "fp32",
        channels_last: bool = True,
        compile: bool = False,
        padding: int = 32,
        fused: bool = True,
    ) -> None:
        self.title, self.device, self.stock, self.precision = title, device, kind == "SoftTeacher", precision
        self.model = build(kind, detector, thresholds, padding)
        self.model.load_state_dict(weights)
        fake = device == fake_device.NAME
        last = channels_last and not self.stock
        self.model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
        if fake:
            fake_device.move(self.model)
        else:
            self.model.to(device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        fast = {"foreach": True} if fake else {"fused": True} if device == "cuda" and not self.stock else {}
        optimizer = torch.optim.SGD(trained, lr=1e-5, momentum=0.9, weight_decay=1e-4, **fast)
        plain = self.stock and precision not in ("bf16", "fp16")
        where = "cpu" if fake else device
        self.wrapper = (
            OptimWrapper(optimizer) if plain else MixedPrecisionOptimWrapper(precision, where, optimizer=optimizer)
        )
        self.wrapper.initialize_count_status(self.model, 0, 10**9)
        if compile:
            compile_features(self.model)
        for part in [] if fused else self.model.modules():
            part.__dict__["_has_no_kernel"] = True
        self.blocks: list[tuple[float, int]] = []
        self.parts: Counter[str] | None = None
        self.memory, self._depth, self._done = 0.0, 0, 0
        self._watch_parts()

    def step(self, data: dict[str, Any]) -> None:
        """Train on one batch."""
        torch.manual_seed(self._done)
        self.model.iteration = self._done
        with self._products():
            with self.wrapper.optim_context(self.model):
                ready = self._part("data", self.model.data_preprocessor)(data, True)
                losses = self._part("method", self.model.loss)(ready["inputs"], ready["data_samples"])
                loss, logs = self.model.parse_losses(losses)
            self.wrapper.update_params(loss)
            self._part("EMA", self._move_teacher)()
            self._part("log", self._log)(logs)
        self._done += 1

    def timed(self, batches: list[dict[str, Any]]) -> float:
        """Seconds of a block of steps, kept in `blocks`; the device is waited for before and after it."""
        before = self._now(wait=True)
        for data in batches:
            self.step(data)
        seconds = self._now(wait=True) - before
        self.blocks.append((seconds, len(batches)))
        return seconds

    def _products(self) -> contextlib.AbstractContextManager[None]:
        if self.precision == "default":
            return contextlib.nullcontext()
        return products_in(self.precision)  # type: ignore[arg-type]

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

    def figures(self) -> dict[str, Any]:
        """Milliseconds of a step, the median over blocks and each, and the peak memory."""
        each = sorted(1000 * seconds / steps for seconds, steps in self.blocks)
        return {"ms": each[len(each) // 2], "ms_of_blocks": each, "peak_mib": self.memory}


def measure(variants: list[Variant], batches: list[dict[str, Any]], blocks: int, steps: int, warm_up: int = 3) -> None:
    """Take steps to warm up, then time blocks of steps of all variants in turn."""
    for variant in variants:
        for data in batches[:warm_up]:
            variant.step(data)
    for number in range(blocks):
        for variant in variants if number % 2 == 0 else reversed(variants):
            with peak_memory(variant):
                variant.timed([batches[index % len(batches)] for index in range(steps)])


@contextlib.contextmanager
def peak_memory(variant: Variant) -> Iterator[None]:
    """Keep the largest memory that a variant's steps take beyond what lay on the device before, of all variants."""
    if variant.device != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    yield
    variant.memory = max(variant.memory, (torch.cuda.max_memory_allocated() - held) / 2**20)


def split_up(variant: Variant, batches: list[dict[str, Any]], steps: int = 3) -> dict[str, float]:
    """Milliseconds of the parts of a step, with the device waited for around each, so that they are slower together."""
    variant.parts = Counter()
    for index in range(steps):
        variant.step(batches[index % len(batches)])
    parts, variant.parts = variant.parts, None
    return {name: 1000 * parts[name] / steps for name in PARTS}
