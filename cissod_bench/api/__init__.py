"""The benchmark from Python: what the commands do, without printing.

Nothing here prints, ends the process, or leaves the process changed: environment, working directory, mmengine's loggers
and scopes and the generators of random numbers are as they were. What a user can mend is a `UserError`, with the
sentence that the command line shows. A path is a text or a `Path`; for a run folder, also what `run` returned.
"""

from cissod_bench.api.results import compare, evaluate, load_results, report
from cissod_bench.api.runs import PreparedRun, export, load_detector, prepare, run, submit, sweep
from cissod_bench.api.splits import load_split, make_splits
from cissod_bench.launch.nodes import Nodes
from cissod_bench.training.spec import RunSpec

__all__ = [
    "Nodes",
    "PreparedRun",
    "RunSpec",
    "compare",
    "evaluate",
    "export",
    "load_detector",
    "load_results",
    "load_split",
    "make_splits",
    "prepare",
    "report",
    "run",
    "submit",
    "sweep",
]
