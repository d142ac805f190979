"""Is it right there? The device against the CPU, mixed precision, waits, DDP."""

import logging
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper, products_in
from tests.methods.plain import SEMI_SUPERVISED, config_of, teacher_student_of
from tests.methods.test_every_method import EVERYTHING, low_threshold
from tests.ssod.models import batch

STEPS = 3
Logs = list[dict[str, float]]


def run(report: Any, device: str) -> None:
    """Everything that must hold."""
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    every_method(report, device)
    mixed_precision(report, device)
    without_pseudo_labels(report, device)
    if device == "cuda":
        waits(report)
        repeats(report)
        distributed(report)


def model_of(name: str, device: str) -> nn.Module:
    """The small detector with a method in it, whose untrained teacher has pseudo labels; the same on every device."""
    method = SEMI_SUPERVISED[name]
    model = teacher_student_of(config_of(method, **low_threshold(method)), semi=EVERYTHING)
    fc_cls = model.student.roi_head.bbox_head.fc_cls
    if fc_cls.bias is not None:  # a prior against foreground leaves an untrained teacher without a detection
        for detector in (model.student, model.teacher):
            nn.init.zeros_(detector.roi_head.bbox_head.fc_cls.bias)
    return model.to(device)


def train(model: nn.Module, device: str, precision: str = "fp32", steps: int = STEPS) -> Logs:
    """Losses of real steps with a moving teacher."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fast = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, **fast)
    wrapper = MixedPrecisionOptimWrapper(precision, device, optimizer=optimizer, clip_grad={"max_norm": 5.0})
    wrapper.initialize_count_status(model, 0, 10**9)
    history = []
    with products_in(precision):  # type: ignore[arg-type]
        for number in range(steps):
            torch.manual_seed(number)
            model.iteration = number
            inputs, samples = batch(number)
            inputs = {name: images.to(device) for name, images in inputs.items()}
            samples = {name: [each.to(device) for each in given] for name, given in samples.items()}
            with wrapper.optim_context(model):
                loss, logs = model.parse_losses(model.loss(inputs, samples))
            wrapper.update_params(loss)
            with torch.no_grad():
                torch._foreach_lerp_(list(model.teacher.parameters()), list(model.student.parameters()), 0.1)
            history.append({name: float(value.detach()) for name, value in logs.items()})
    return history


def furthest(one: Logs, other: Logs, only: str = "loss") -> float:
    """Largest relative difference of losses, with one as the least denominator of small ones a hundredth."""
    return max(
        abs(mine[name] - value) / max(abs(value), 1e-2)
        for mine, theirs in zip(one, other, strict=True)
        for name, value in theirs.items()
        if only in name
    )


def every_method(report: Any, device: str) -> None:
    """Losses and state of three steps on the device against the CPU's."""
    for name in SEMI_SUPERVISED:
        here, there = model_of(name, "cpu"), model_of(name, device)
        expected, actual = train(here, "cpu"), train(there, device)
        state = 0.0
        for key, buffer in here.named_buffers():
            if buffer.is_floating_point() and buffer.numel():
                other = there.get_buffer(key).cpu()
                scale = buffer.abs().max().clamp(min=1e-6)
                state = max(state, float(((other - buffer).abs().nan_to_num() / scale).max()))
        pairs = zip(here.parameters(), there.parameters(), strict=True)
        weights = max(float((one.detach() - other.detach().cpu()).abs().max()) for one, other in pairs)
        report.add(f"{name} against the CPU", {
            "losses": furthest(actual, expected), "first_step": furthest(actual[:1], expected[:1]), "state": state,
            "weights": weights, "worst": worst(actual, expected),
        })  # fmt: skip


def worst(one: Logs, other: Logs) -> str:
    """The loss that differs most, and where."""
    return max(
        (abs(mine[name] - value) / max(abs(value), 1e-2), f"{name} of step {step}")
        for step, (mine, theirs) in enumerate(zip(one, other, strict=True))
        for name, value in theirs.items()
        if "loss" in name
    )[1]


def mixed_precision(report: Any, device: str) -> None:
    """Losses at other precisions against single precision."""
    expected = train(model_of("gbs", device), device)
    for precision in ("tf32", "bf16", "fp16"):
        actual = train(model_of("gbs", device), device, precision)
        finite = all(abs(value) < 1e6 for logs in actual for value in logs.values())
        first = [{name: value for name, value in logs.items() if "rpn" in name} for logs in (actual[0], expected[0])]
        report.add(precision, {"finite": finite, "rpn_losses": furthest(first[:1], first[1:]),
                               "losses": furthest(actual, expected), "first_step": furthest(actual[:1], expected[:1]),
                               })  # fmt: skip


def without_pseudo_labels(report: Any, device: str) -> None:
    """A step in which the teacher finds nothing good enough."""
    model = model_of("gbs", device)
    model.semi_train_cfg.pseudo_label_initial_score_thr = 2.0
    logs = train(model, device, steps=1)[0]
    report.add("without pseudo labels", {name: value for name, value in logs.items() if name.startswith("unsup")})


def waits(report: Any) -> None:
    """Where a step waits, by PyTorch's own check."""
    model = model_of("gbs", "cuda")
    train(model, "cuda", steps=2)  # fills caches
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(model, "cuda", steps=1)
    torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{'/'.join(Path(each.filename).parts[-2:])}:{each.lineno}" for each in said)
    report.add("waits", {"all": sum(places.values()), "by place": dict(places.most_common())})


def repeats(report: Any) -> None:
    """How far the same steps, twice on the device, differ: the noise that nothing can be closer than."""
    for name in ("soft-teacher", "gbs"):
        one, other = model_of(name, "cuda"), model_of(name, "cuda")
        first, second = train(one, "cuda"), train(other, "cuda")
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        weights = max(float((mine - theirs).abs().max().detach()) for mine, theirs in pairs)
        report.add(f"{name} twice", {"losses": furthest(first, second), "weights": weights})


def distributed(report: Any) -> None:
    """A step in a group of one process under NCCL and DDP against one without."""
    from mmengine.model import MMDistributedDataParallel

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    expected = train(model_of("gbs", "cuda"), "cuda", steps=1)
    torch.distributed.init_process_group("nccl")
    try:
        model = model_of("gbs", "cuda")
        wrapped = MMDistributedDataParallel(model, device_ids=[0], broadcast_buffers=False)
        inputs, samples = batch(0)
        torch.manual_seed(0)
        model.iteration = 0
        inputs = {name: images.cuda() for name, images in inputs.items()}
        samples = {name: [each.cuda() for each in given] for name, given in samples.items()}
        with products_in("fp32"):
            loss, logs = model.parse_losses(wrapped(inputs, samples, mode="loss"))
            loss.backward()
        actual = [{name: float(value.detach()) for name, value in logs.items()}]
        reached = all(parameter.grad is not None for parameter in model.student.roi_head.parameters())
        report.add("NCCL and DDP", {"losses": furthest(actual, expected), "gradients": reached})
    finally:
        torch.distributed.destroy_process_group()
