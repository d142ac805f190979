"""Train and evaluate one job, and leave a complete run folder behind.

::

    config.py          the resolved configuration
    <timestamp>/       what mmengine says, in a folder for each start
    scalars.jsonl      losses, rates, times and AP over time, one line an interval
    console.txt        what libraries print
    checkpoints/       the last checkpoints; an unfinished run goes on from the newest one
    detections.json    detections on the validation images, COCO's results format
    per_class.npz      unrounded precision and recall arrays of every class
    method.py          the source of a user's own method
    observables.jsonl  weights, thresholds and quality of pseudo labels over time (`observables.py`)
    result.json        the record that `report` reads; written last, so a folder with it is a finished run
"""

import contextlib
import errno
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.evaluation.groups import load_evaluation
from cissod_bench.io import in_use, lock, sha256_bytes, write_bytes, write_text
from cissod_bench.results.record import (
    IN_USE,
    RESULT_FILE,
    Key,
    Result,
    describe_environment,
    git_state,
    load_result,
    make_result,
    write_result,
)
from cissod_bench.ssod.data.damaged import DamagedImage
from cissod_bench.ssod.hooks.checkpoints import newest_readable, read_config
from cissod_bench.ssod.hooks.iteration import wrap_again
from cissod_bench.ssod.stopping import stop_on_signals
from cissod_bench.training.build_config import METHOD_FILE, VALIDATION_IMAGES, build_config, validation_list
from cissod_bench.training.distributed import from_main, main_process_speaks, process_group
from cissod_bench.training.identity import differences, show
from cissod_bench.training.job import Job
from cissod_bench.training.preflight import check_parts

BUSY = "{}: a run goes on in this folder. Wait for it, or stop it."


class QuietRunner(Runner):
    """mmengine's runner with the log in its file; the terminal gets warnings and the progress bar."""

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """The logger of the base class with its console handlers turned down."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
        return logger

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        wrap_again(self)  # initialisation lays weights out with channels last

    def dump_config(self) -> None:
        """Leave it out: the run folder has its configuration."""


def run_job(job: Job) -> Result:
    """Train, evaluate and record; go on with an unfinished run of the same job; leave a finished one as it is.

    A job of several processes is run by each of them at the same time, see `ranks.py`.

    Raises:
        UserError: the run folder holds something else, or another job's run; no space is left on the disk.
        Stopped: a signal asked the run to stop; it goes on when the job is run again.
    """
    torch.set_num_threads(job.threads)
    with process_group(job.processes, job.device):
        config = build_config(job)
        if from_main((job.out / RESULT_FILE).exists):
            check_same(job.out, config.pretty_text)
            return load_result(job.out / RESULT_FILE)
        check_parts(job)
        config.load_from = from_main(lambda: start_folder(job, config.pretty_text))
        config.resume = config.load_from is not None
        if job.processes > 1:
            config.launcher = "pytorch"
            config.model_wrapper_cfg = {
                "type": "MMDistributedDataParallel",
                "broadcast_buffers": False,
                "device_ids": None,
            }
        with (
            main_process_speaks(job.out / "console.txt"),
            only_run_in(job.out),
            stop_on_signals() as stop,
            readable_errors(job.out),
        ):
            runner = QuietRunner.from_cfg(config)
            runner.stop = stop
            try:
                runner.train()
            finally:
                runner.visualizer.close()
        if is_main_process():
            write_result(job.out / RESULT_FILE, record(job, runner.seconds_trained(), runner.damaged_images()))
        barrier()
        return load_result(job.out / RESULT_FILE)


def start_folder(job: Job, config: str) -> str | None:
    """Get the run folder ready for training; the checkpoint to go on from, see `prepare_folder`."""
    if in_use(job.out / IN_USE):
        raise UserError(BUSY.format(job.out))
    source = method_source(job)
    checkpoint = prepare_folder(job.out, config)
    if source is not None:
        write_bytes(job.out / METHOD_FILE, source)
    write_bytes(job.out / VALIDATION_IMAGES, validation_list(job))
    return checkpoint


def record(job: Job, seconds: float, damaged: dict[str, int]) -> Result:
    """The record of a run whose last evaluation is in its folder.

    Args:
        job: the run.
        seconds: that training and evaluation took.
        damaged: file of each training image that could not be read -> number of draws that got another one.
    """
    return make_result(
        Key(
            task=job.task.name,
            protocol=job.task.version,
            split_digest=job.split.digest,
            split_seed=job.split.seed,
            train_seed=job.seed,
            method=job.method.name,
            method_options=job.changed_options,
            method_digest=job.method.digest,
            overrides=job.overrides,
            schedule=job.schedule.name,
            iterations=job.iterations,
            shortened=job.shortened,
            backbone=job.backbone_digest,
            detector=job.detector.name,
            batch=job.batch,
            amp=job.amp,
            compile=job.compile,
            evaluator=job.evaluator,
            max_detections=job.task.max_detections,
            rules="lvis" if job.task.dataset == "lvis" else "coco",
        ),
        load_evaluation(job.out / "per_class.npz"),
        files={"config": "config.py", "detections": "detections.json", "per_class": "per_class.npz"}
        | ({} if job.method.file is None else {"method": METHOD_FILE}),
        environment=describe_environment()
        | ({} if job.method.package is None else dict([job.method.package.rsplit(" ", 1)])),
        split=str(job.split.folder),
        timing={"train_and_evaluate": seconds},
        damaged_images=damaged,
        gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if job.device == "cuda" else None,
        git=git_state(Path(__file__).parent),
    )


def method_source(job: Job) -> bytes | None:
    """The source of a user's own method, None for a built-in one.

    Raises:
        UserError: the file has been edited since it was imported.
    """
    if job.method.file is None:
        return None
    source = job.method.file.read_bytes()
    if sha256_bytes(source) != job.method.digest:
        raise UserError(f"{job.method.file}: edited while the run was being prepared. Run again.")
    return source


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Have a run folder for this run alone, whose main process takes its lock.

    Raises:
        UserError: a run goes on there.
    """
    with contextlib.ExitStack() as held:
        if is_main_process():
            try:
                held.enter_context(lock(out / IN_USE))
            except BlockingIOError:
                raise UserError(BUSY.format(out)) from None
            except OSError as error:  # a file system without locks
                warnings.warn(f"{out} cannot be locked ({error.strerror}).", stacklevel=2)
        yield


@contextlib.contextmanager
def readable_errors(out: Path) -> Iterator[None]:
    """Errors of training that a user can mend, as such."""
    try:
        yield
    except DamagedImage as error:
        # Out of a loader process it comes with a traceback before the message.
        message = str(error).strip().rpartition("\n")[2].rpartition("DamagedImage: ")[2]
        raise UserError(f"{message} Replace what is damaged and run again.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{error.filename or out}: {error.strerror}. Make room on the disk, and the same command goes on from "
                "the last checkpoint."
            ) from error
        raise


def prepare_folder(out: Path, config: str) -> str | None:
    """Make a run folder, or find where its unfinished run can go on.

    Args:
        out: the run folder.
        config: text of the configuration.

    Returns:
        The checkpoint to resume from, None to start from the beginning.

    Raises:
        UserError: the folder holds something else, a run with another configuration, or another run's checkpoint.
    """
    checkpoint = None
    if out.exists() and any(out.iterdir()):
        checkpoint, damaged = newest_readable(out / "checkpoints")
        if checkpoint is not None or not (out / "config.py").is_file():
            check_same(out, config)
        if checkpoint is not None:
            found = differences(read_config(checkpoint), config)
            if found:
                raise UserError(f"{checkpoint}: a checkpoint of another run: {show(found)}. Remove it.")
        for path in damaged:
            warnings.warn(f"{path} is damaged; going on from {checkpoint}.", stacklevel=2)
    write_text(out / "config.py", config)
    return None if checkpoint is None else str(checkpoint)


def check_same(out: Path, config: str) -> None:
    """Hold the configuration of the run in a folder against another one.

    Raises:
        UserError: there is no run in the folder, or its configuration differs; the differences are shown.
    """
    if not (out / "config.py").is_file():
        raise UserError(f"{out}: the folder is not empty and holds no run. Give another --out.")
    found = differences((out / "config.py").read_text(), config)
    if found:
        raise UserError(f"{out} holds another run: {show(found)}. Give another --out.")


def pick_device(name: str, processes: int = 1) -> str:
    """ "cuda" where `name` is "auto" and there is a GPU, else `name`.

    Args:
        name: "auto", "cuda" or "cpu".
        processes: training processes on this machine, each of which needs a GPU of its own.

    Raises:
        UserError: not a device, or more GPUs are asked for than there are.
    """
    if name not in ("auto", "cuda", "cpu"):
        raise unknown_name("device", name, ("auto", "cuda", "cpu"))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    available = torch.cuda.device_count()
    if available == 0:
        raise UserError("--device cuda: PyTorch finds no GPU; `cissod-bench doctor` says more.")
    if processes > available:
        raise UserError(f"--gpus {processes}: this machine has {available}. --device cpu takes processes without GPUs.")
    return "cuda"


def default_threads(processes: int = 1) -> int:
    """Threads for PyTorch's CPU operators: OMP_NUM_THREADS where it is set, else the machine's cores shared out.

    Args:
        processes: training processes on this machine.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # OpenMP allows a list, one number a level
    return int(given) if given.isdecimal() and int(given) > 0 else max(1, (os.cpu_count() or 1) // processes)
