"""Steps of stock mmdet `SoftTeacher` and of the framework at each precision, in turns, and where the time goes."""

import logging
from typing import Any

import torch
from mmengine.registry import init_default_scope
from steps import Variant, batch, first_weights, measure, split_up

VARIANTS = [
    ("stock fp32", "SoftTeacher", {"precision": "fp32"}),
    ("framework fp32", "TeacherStudent", {"precision": "fp32", "channels_last": False}),
    ("framework fp32, channels last", "TeacherStudent", {"precision": "fp32"}),
    ("framework tf32", "TeacherStudent", {"precision": "tf32"}),
    ("framework bf16", "TeacherStudent", {"precision": "bf16"}),
    ("framework bf16, not fused", "TeacherStudent", {"precision": "bf16", "fused": False}),
    ("framework fp16", "TeacherStudent", {"precision": "fp16"}),
    ("stock fp16", "SoftTeacher", {"precision": "fp16"}),
    ("stock, PyTorch's defaults", "SoftTeacher", {"precision": "default"}),
]


def run(report: Any, device: str) -> None:
    """Times, peaks, profiles and parts of all variants."""
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    on_gpu = device == "cuda"
    detector, size = ("r50-fpn", (1333, 800)) if on_gpu else ("r18-small", (128, 128))
    batches = [batch(seed, *size) for seed in range(4)]
    weights, thresholds = first_weights(detector, batches[0], device)
    variants = [
        Variant(title, kind, detector, weights, thresholds, device, **changes)
        for title, kind, changes in (VARIANTS if on_gpu else VARIANTS[:1] + VARIANTS[4:5])
    ]
    for number in range(3 if on_gpu else 1):
        measure(variants, batches, 1, 5 if on_gpu else 1, warm_up=3 if number == 0 else 1)
        times = {variant.title: variant.figures()["ms"] for variant in variants}
        report.add("steps", {variant.title: variant.figures() for variant in variants})
        report.add("times stock fp32", {title: times["stock fp32"] / spent for title, spent in times.items()})
        if report.seconds_left() < 35:
            break
    for title in ("framework bf16", "framework tf32", "framework fp32", "stock fp32", "stock fp16"):
        for variant in variants:
            if variant.title == title and report.seconds_left() > 6:
                report.add(f"profile of {title}", profiled(variant, batches, on_gpu))
    for variant in variants:
        if report.seconds_left() > 5:
            report.add(f"parts of {variant.title} ms", split_up(variant, batches))


def profiled(variant: Variant, batches: list[dict[str, Any]], on_gpu: bool) -> dict[str, Any]:
    """Of one step: launches, copies, waits; milliseconds of the device and by kernel, of the host by operator."""
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    torch.manual_seed(0)
    with torch.profiler.profile(activities=activities) as profile:
        variant.step(batches[0])
        if on_gpu:
            torch.cuda.synchronize()
    events = profile.key_averages()
    calls = {event.key: event.count for event in events if event.key.startswith("cu")}
    kernels = [event for event in events if str(event.device_type).endswith("CUDA")]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    host = sorted(events, key=lambda event: -event.self_cpu_time_total)
    return {
        "launches": sum(count for name, count in calls.items() if "Launch" in name),
        "copies": sum(count for name, count in calls.items() if "Memcpy" in name),
        "waits": sum(count for name, count in calls.items() if name.endswith("Synchronize")),
        "device_ms": sum(event.self_device_time_total for event in kernels) / 1000,
        "kernels": [[event.key[:90], event.count, event.self_device_time_total / 1000] for event in kernels[:28]],
        "host": [[event.key[:60], event.count, event.self_cpu_time_total / 1000] for event in host[:28]],
    }
