"""One process of a run started by `torchrun.py`: `python -m cissod_bench.launch.worker SPEC.json [quiet]`.

It prints nothing; errors go into the file that torchrun's agent reads.
"""

import contextlib
import ctypes
import os
import signal
import sys
import warnings
from pathlib import Path

from cissod_bench.errors import Stopped, UserError

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with(parent: int) -> None:
    """The same in a new process, before its program starts; the parent may be dead already."""
    end_with_parent()
    if sys.platform == "linux" and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Execute the run and return the exit code."""
    end_with_parent()
    # Only the main process warns about the run, and no process repeats the libraries' own warnings.
    warnings.filterwarnings("ignore", module=r"(mmengine|mmdet|mmcv)\." if os.environ["RANK"] == "0" else "")
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            from cissod_bench.training.job import resolve_job
            from cissod_bench.training.runner import run_job
            from cissod_bench.training.spec import decode_spec

            spec = decode_spec(Path(sys.argv[1]).read_bytes())
            if spec.device == "cpu":
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine uses any GPU it can see
            run_job(resolve_job(spec, look_for_images=False), progress="quiet" not in sys.argv[2:])
    except BaseException as error:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
        return 2 if isinstance(error, UserError) else error.exit_code if isinstance(error, Stopped) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
