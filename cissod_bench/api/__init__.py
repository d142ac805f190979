"""The benchmark from Python: what the commands do, without printing.

Nothing here prints, ends the process, or leaves the process changed: environment, working directory, mmengine's loggers
and scopes and the generators of random numbers are as they were. What a user can mend is a `UserError`, with the
sentence that the command line shows. A path is a text or a `Path`; for a run folder, also what `run` returned.
"""

from cissod_bench.api.data import check_data, data_sources, fetch_data
from cissod_bench.api.exchange import export_split, import_split
from cissod_bench.api.publishing import check_results, pack_submission
from cissod_bench.api.results import compare, error_types, load_results, report
from cissod_bench.api.runs import PreparedRun, export, load_detector, prepare, run, submit, sweep
from cissod_bench.api.scoring import evaluate, plot_calibration, score, state_training
from cissod_bench.api.splits import compare_splits, describe_split, load_split, make_splits, plot_splits, verify_split
from cissod_bench.launch.nodes import Nodes
from cissod_bench.training.spec import RunSpec

__all__ = [
    "Nodes",
    "PreparedRun",
    "RunSpec",
    "check_data",
    "check_results",
    "compare",
    "compare_splits",
    "data_sources",
    "describe_split",
    "error_types",
    "evaluate",
    "export",
    "export_split",
    "fetch_data",
    "import_split",
    "load_detector",
    "load_results",
    "load_split",
    "make_splits",
    "pack_submission",
    "plot_calibration",
    "plot_splits",
    "prepare",
    "report",
    "run",
    "score",
    "state_training",
    "submit",
    "sweep",
    "verify_split",
]
