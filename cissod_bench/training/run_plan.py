"""The plan of a run, printed before it starts."""

from typing import Any

from cissod_bench.ssod.hooks.progress import FORWARD
from cissod_bench.tasks.official import remark, train_sizes
from cissod_bench.training.build_config import build_config
from cissod_bench.training.job import Job
from cissod_bench.training.recipes.scaling import rule, scaled_length
from cissod_bench.training.spec import reference_images
from cissod_bench.words import counted


def plan(job: Job) -> dict[str, Any]:
    """What a user should see before a run starts, as plain values.

    Raises:
        UserError: an override does not fit the configuration.
    """
    config = build_config(job)
    labeled, unlabeled = job.batch
    seconds = job.detector.step_seconds.get(job.device)
    return {
        "task": job.task.name,
        "method": job.method.name,
        "options": job.key.method_options,
        "overrides": job.key.overrides,
        "detector": job.detector.name,
        "backbone": str(job.spec.backbone) if job.spec.backbone else None,
        "split": str(job.split.folder),
        "split_digest": job.split.digest,
        "other_data": remark(
            job.task.name, train_sizes(job.split.source) | {"validation_images": len(job.validation_images)}
        ),
        "labeled_images": job.split.counts["labeled_images"],
        "unlabeled_images": job.split.counts["unlabeled_images"],
        "device": job.device,
        "processes": job.processes,
        "gpus": job.processes if job.device == "cuda" else 0,
        "precision": job.precision,
        "compile": job.spec.compile,
        "batch": {"labeled": labeled, "unlabeled": unlabeled},
        "learning_rate": config.optim_wrapper.optimizer.lr,
        "learning_rate_steps": [step // job.spec.accumulate for step in config.param_scheduler[1].milestones],
        "learning_rate_factor": config.param_scheduler[1].gamma,
        "schedule": job.schedule.name,
        "iterations": job.key.iterations,
        "full_iterations": scaled_length(job.task.iterations, job.scale),
        "estimated_hours": None if seconds is None else seconds * cost(job) * job.iterations / 3600,
        "seed": job.seed,
        "out": str(job.out),
    }


def cost(job: Job) -> float:
    """Time of a step over that of Soft Teacher's: the student trains on every image, the teacher predicts on D_u."""
    (labeled, unlabeled), of_preset = job.per_gpu, job.detector.per_gpu
    return (labeled + unlabeled * (1 + FORWARD)) / (of_preset[0] + of_preset[1] * (1 + FORWARD))


def plan_lines(job: Job) -> list[str]:
    """The plan as lines of text."""
    facts = plan(job)
    options = ", ".join(f"{name}={value}" for name, value in facts["options"].items())
    batch, full = facts["batch"], facts["full_iterations"]
    images = batch["labeled"] + batch["unlabeled"]
    hours = facts["estimated_hours"]
    shortened = f", shortened from {full:,}" if job.key.iterations < full else ""
    reference = reference_images(job.detector)
    if not job.method_config.unlabeled:
        reference = job.detector.per_gpu[0] * job.detector.reference_gpus
    scaled = same = ""
    if images != reference:
        scaled = f" ({job.detector.optimizer['lr']:g} for {reference}, {rule(job.detector.optimizer)})"
        same = f", full length {job.task.iterations:,} for {reference} images a step, {full:,} for {images}"
    return [
        f"{facts['method']} on {facts['task']}" + (f" with {options}" if options else ""),
        f"  detector   {facts['detector']}, backbone {facts['backbone'] or _from_scratch(job)}",
        f"  split      {facts['split']} (digest {facts['split_digest'][:12]}): {facts['labeled_images']:,} labelled "
        f"and {facts['unlabeled_images']:,} unlabelled images",
        *(["  labels     of all these images: not semi-supervised"] if job.method_config.all_labels else []),
        f"  batch      {images} images a step: {batch['labeled']} labelled + {batch['unlabeled']} unlabelled, "
        + (f"summed up over {job.spec.accumulate} batches, " if job.spec.accumulate > 1 else "")
        + _machinery(job),
        f"  precision  {job.precision}"
        + (" (fp32 on a CPU)" if (job.precision, job.device) == ("tf32", "cpu") else "")
        + (", backbone and neck compiled" if job.spec.compile else ""),
        f"  rate       {facts['learning_rate']:g} for {images} images a step{scaled}, {_steps(facts)}",
        f"  length     {job.key.iterations:,} iterations ({facts['schedule']}{shortened}{same}), "
        + ("time unknown for this device" if hours is None else f"training about {_duration(hours)}")
        + (" on V100s" if hours is not None and job.device == "cuda" else ""),
        *([f"  data       {facts['other_data']}"] if facts["other_data"] else []),
        *(f"  set        {name} = {value!r}" for name, value in facts["overrides"].items()),
        f"  seed       {facts['seed']}",
        f"  run folder {facts['out']}",
    ]


def _steps(facts: dict[str, Any]) -> str:
    steps, factor = [f"{step:,}" for step in facts["learning_rate_steps"]], facts["learning_rate_factor"]
    if not steps:
        return "never lowered"
    listed = " and ".join(filter(None, (", ".join(steps[:-1]), steps[-1])))
    return f"{'/10' if factor == 0.1 else f'times {factor:g}'} at {listed}"


def _machinery(job: Job) -> str:
    if job.device == "cuda":
        return "1 GPU" if job.processes == 1 else f"{job.processes} GPUs"
    processes = "" if job.processes == 1 else f"{job.processes} processes "
    return f"CPU, {processes}with {counted(job.threads, 'thread')}" + (" each" if job.processes > 1 else "")


def _from_scratch(job: Job) -> str:
    if job.detector.weights is not None:
        return "from the package"
    if job.detector.reference_gpus == 1:
        return "from scratch"
    return "from scratch, with group normalisation; the paper starts from ImageNet weights (--backbone)"


def _duration(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 2 else f"{max(1, round(hours * 60))} min"
