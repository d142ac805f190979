"""What a run's detector costs: parameters, operations and time per image. Measured when the run is over.

Everything else a run leaves has been written by then, and random numbers are as they were: no result depends on this.
"""

import statistics
import time
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from torch.utils.flop_counter import FlopCounterMode

from cissod_bench.results.record import Costs
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.ssod.randomness import preserved_randomness
from cissod_bench.training.job import Job

IMAGES = 10
SECONDS = 2.0
"""Most images, and seconds after which no further one is timed."""


def run_costs(job: Job, runner: Any, seconds: float) -> Costs:
    """Costs of a run whose last evaluation is over.

    Args:
        job: the run.
        runner: its runner, on the main process.
        seconds: time that training and evaluation took.
    """
    model = model_of(runner)
    longest, shortest = job.detector.test_scale
    with preserved_randomness(), torch.no_grad():
        latency = latency_ms(model, runner.val_dataloader.dataset)
        # Built anew, as mmdet has it: the counter does not know the fused kernels that a GPU trains with.
        detector = MODELS.build(runner.cfg.model.detector)
        flops: int | None
        try:
            flops = detector_flops(detector, (shortest, longest))
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            flops = None  # a part of a user's own needs values; the run is whole without this number
    threads = torch.get_num_threads()
    on_cpu = f"cpu, {threads} {'thread' if threads == 1 else 'threads'}"
    return Costs(
        parameters=sum(parameter.numel() for parameter in model.teacher.parameters()),
        flops=flops,
        image=(shortest, longest),
        latency_ms=latency,
        device=torch.cuda.get_device_name() if job.device == "cuda" else on_cpu,
        gpu_hours=seconds * job.processes / 3600 if job.device == "cuda" else None,
    )


def detector_flops(detector: Any, image: tuple[int, int]) -> int:
    """Floating-point operations of convolutions and matrix products for one image; a multiply-add counts as two.

    Nothing is computed: the tensors have shapes alone (PyTorch's "meta" device). Boxes depend on values, so the RoI
    head gets as many as it may get at test time.

    Args:
        detector: mmdet's two-stage detector; its weights are dropped.
        image: height and width in pixels.
    """
    detector = detector.to("meta").eval()
    roi_head = detector.roi_head
    extractor = roi_head.bbox_roi_extractor
    size = (detector.test_cfg.rpn.max_per_img, extractor.out_channels, *extractor.roi_layers[0].output_size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        features = detector.extract_feat(torch.empty(1, 3, *image, device="meta"))
        detector.rpn_head(features)
        pooled = torch.empty(*size, device="meta")
        roi_head.bbox_head(roi_head.shared_head(pooled) if roi_head.with_shared_head else pooled)
    return int(counter.get_total_flops())


def latency_ms(model: Any, images: Any) -> float:
    """Median milliseconds from a decoded test image to its detections, one image at a time on the run's device.

    Args:
        model: a `TeacherStudent`.
        images: the validation images, which come resized.
    """
    model.eval()
    times: list[float] = []
    for index in range(min(len(images), IMAGES)):
        batch = pseudo_collate([images[index]])
        _wait()
        started = time.perf_counter()
        model.val_step(batch)
        _wait()
        times.append(1000 * (time.perf_counter() - started))
        if sum(times) > 1000 * SECONDS:
            break
    # The first image of a size also pays for plans and allocations.
    return statistics.median(times[1:] or times)


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
