"""Train and evaluate one job, and leave a complete run folder behind (`results/run_folder.py`)."""

import contextlib
import errno
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmdet.evaluation  # noqa: F401  mmengine imports it when it looks for a metric, which prints a warning in a run
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner

from cissod_bench.errors import UserError
from cissod_bench.evaluation.groups import load_evaluation
from cissod_bench.evaluation.inputs import read_ground_truth
from cissod_bench.io import sha256_bytes, write_bytes, write_text
from cissod_bench.results.data_sizes import data_facts
from cissod_bench.results.environment import describe_environment, git_state
from cissod_bench.results.record import Result, make_result, write_result
from cissod_bench.results.run_folder import NO_RUN, NOT_RESUMABLE, RunFolder, begun_by_version_0_1
from cissod_bench.ssod.data.damaged import DamagedImage, WrongSize
from cissod_bench.ssod.hooks.checkpoints import newest_readable, read_config
from cissod_bench.ssod.hooks.iteration import model_of, wrap_again
from cissod_bench.ssod.hooks.progress import ProgressHook
from cissod_bench.ssod.model.layout import lay_out
from cissod_bench.ssod.precision import products_in
from cissod_bench.ssod.stopping import stop_on_signals
from cissod_bench.training.build_config import build_config, validation_list
from cissod_bench.training.config_diff import differences, show
from cissod_bench.training.costs import run_costs
from cissod_bench.training.job import Job
from cissod_bench.training.preflight import check_parts
from cissod_bench.training.process.distributed import from_main, main_process_speaks, process_group
from cissod_bench.training.process.isolation import isolated


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
        """Draw weights on the host, where the same ones come out for every device."""
        model = model_of(self)
        device = next(model.parameters()).device
        model.cpu()
        super()._init_model_weights()
        lay_out(model.to(device), self.cfg.optim_wrapper.precision)
        wrap_again(self)

    def wrap_model(self, wrapper: Any, model: Any) -> Any:
        """The wrapper of the base class; a single process has its model on the run's device, not on any GPU."""
        wrapped = super().wrap_model(wrapper, model)
        return wrapped if self.distributed else wrapped.to(self.cfg.optim_wrapper.device)

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Leave it out: the record has the environment, and mmengine would ask a shell for a C compiler."""

    def dump_config(self) -> None:
        """Leave it out: the run folder has its configuration."""


def run_job(job: Job, *, progress: bool = True) -> Result:
    """Train, evaluate and record; continue an unfinished run of the same job; leave a finished one as it is.

    A job of several processes is run by each of them at the same time, see `distributed.py`.

    Args:
        job: the run.
        progress: whether to show how far the run is, on standard error.

    Raises:
        UserError: the run folder holds something else, or another job's run; no space is left on the disk.
        Stopped: a signal asked the run to stop; it continues when the job is run again.
    """
    with (
        isolated(job.threads),
        products_in(job.precision),
        process_group(job.processes, job.device),
        contextlib.ExitStack() as held,
    ):
        config = build_config(job)
        if from_main(lambda: job.folder.finished):
            check_same(job.folder, config.pretty_text)
            return job.folder.result()
        check_parts(job)
        from_main(lambda: take_folder(job.folder, held))
        if from_main(lambda: job.folder.finished):  # by another process, until it gave up the lock
            check_same(job.folder, config.pretty_text)
            return job.folder.result()
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
            main_process_speaks(job.folder.console),
            stop_on_signals() as stop,
            readable_errors(job.out),
        ):
            if job.spec.accumulate > 1:  # the first step comes after the rate's first changes, which is intended
                warnings.filterwarnings("ignore", message=r"Detected call of `scheduler\.step\(\)` before")
            runner = QuietRunner.from_cfg(config)
            runner.stop = stop
            if not progress:
                runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, ProgressHook)]
            try:
                runner.train()
            finally:
                for hook in runner.hooks:
                    if isinstance(hook, ProgressHook):
                        hook.close()
                runner.visualizer.close()
                end_loader_workers(runner)
        if is_main_process():
            job.folder.fixed_ap.unlink(missing_ok=True)  # it would be of other weights
            write_result(job.folder.record, record(job, runner))
        barrier()
        return job.folder.result()


def check_folder(job: Job) -> None:
    """Look at the run folder of a job as `run_job` will, and write nothing.

    Raises:
        UserError: the folder holds something else, or another job's run; or cannot be written to.
    """
    folder = job.folder
    begun = folder.finished or newest_readable(folder.checkpoints)[0] is not None or not folder.config.is_file()
    if folder.path.exists() and not folder.unused and begun:
        check_same(folder, build_config(job).pretty_text)
    place = next(each for each in (folder.path.absolute(), *folder.path.absolute().parents) if each.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder.path}: {place} cannot be written to. Give another --out.")


def take_folder(folder: RunFolder, held: contextlib.ExitStack) -> None:
    """Lock a run folder, which is made if need be, before anything in it is looked at or written.

    Raises:
        UserError: a run is under way there, or the folder holds something else.
    """
    if folder.path.exists() and not folder.config.is_file() and not folder.unused:
        raise UserError(NO_RUN.format(folder.path))
    folder.path.mkdir(parents=True, exist_ok=True)
    held.enter_context(folder.locked())


def start_folder(job: Job, config: str) -> str | None:
    """Get the run folder ready for training; the checkpoint to resume from, see `prepare_folder`."""
    source = method_source(job)
    checkpoint = prepare_folder(job.folder, config)
    if source is not None:
        write_bytes(job.folder.method, source)
    if job.detector.file is not None:
        write_bytes(job.folder.detector, job.detector.file.source)
    if job.method_config.all_labels and (checkpoint is None or not job.folder.full_labels.is_file()):
        job.write_full_labels(job.folder.full_labels)
    write_bytes(job.folder.validation_images, validation_list(job))
    return checkpoint


def end_loader_workers(runner: Runner) -> None:
    """Let the workers of the loaders end now: those that live when Python exits are killed, and PyTorch complains."""
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        workers = getattr(getattr(loop, "dataloader", None), "_iterator", None)
        if workers is not None and hasattr(workers, "_shutdown_workers"):
            workers._shutdown_workers()


def record(job: Job, runner: Runner) -> Result:
    """The record of a run whose last evaluation is in its folder."""
    folder = job.folder
    seconds = runner.seconds_trained()
    gpu_memory_mib = runner.peak_memory_mib() if job.device == "cuda" else None  # before anything is measured
    own = {"method": job.method.file, "detector": job.detector.file}
    roles = ("config", "detections", "per_class", *(role for role, file in own.items() if file is not None))
    return make_result(
        job.key,
        load_evaluation(folder.per_class),
        files={role: getattr(folder, role).name for role in roles},
        environment=describe_environment()
        | ({} if job.method.package is None else dict([job.method.package.rsplit(" ", 1)])),
        **data_facts(job.split, read_ground_truth(job.places.val_annotations)),
        timing={"train_and_evaluate": seconds},
        damaged_images=runner.damaged_images(),
        gpu_memory_mib=gpu_memory_mib,
        costs=run_costs(job, runner, seconds),
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
def readable_errors(out: Path) -> Iterator[None]:
    """Errors of training that a user can mend, as such."""
    try:
        yield
    except DamagedImage as error:
        # Out of a loader process it comes with a traceback before the message.
        message = str(error).strip().rpartition("\n")[2].rpartition("DamagedImage: ")[2]
        raise UserError(f"{message} Replace what is damaged and run again.") from error
    except WrongSize as error:
        raise UserError(str(error).strip().rpartition("\n")[2].rpartition("WrongSize: ")[2]) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{error.filename or out}: {error.strerror}. Free some disk space, then run the same command again to "
                "resume from the last checkpoint."
            ) from error
        raise


def prepare_folder(folder: RunFolder, config: str) -> str | None:
    """Make a run folder, or find where its unfinished run can continue.

    Args:
        folder: the run folder.
        config: text of the configuration.

    Returns:
        The checkpoint to resume from, None to start from the beginning.

    Raises:
        UserError: the folder holds something else, a run with another configuration, an unfinished one of version 0.1,
            or another run's checkpoint.
    """
    checkpoint = None
    if folder.path.exists() and not folder.unused:
        checkpoint, damaged = newest_readable(folder.checkpoints)
        if checkpoint is not None or not folder.config.is_file():
            check_same(folder, config)
        if checkpoint is not None:
            if begun_by_version_0_1(folder.configured()):
                raise UserError(f"{folder.path} {NOT_RESUMABLE}. Give another --out.")
            found = differences(read_config(checkpoint), config)
            if found:
                raise UserError(f"{checkpoint} belongs to another run: {show(found)}. Remove it.")
        for path in damaged:
            warnings.warn(f"{path} is damaged; resuming from {checkpoint}.", stacklevel=2)
    write_text(folder.config, config)
    return None if checkpoint is None else str(checkpoint)


def check_same(folder: RunFolder, config: str) -> None:
    """Compare the configuration of the run in a folder with another one.

    Raises:
        UserError: there is no run in the folder, or its configuration differs; the differences are shown.
    """
    if not folder.config.is_file():
        raise UserError(NO_RUN.format(folder.path))
    try:
        found = differences(folder.config_text(), config)
    except (SyntaxError, ValueError, KeyError) as error:
        raise UserError(f"{folder.config}: not the configuration of a run ({error}). Give another --out.") from None
    if found:
        raise UserError(f"{folder.path} holds another run: {show(found)}. Give another --out.")
