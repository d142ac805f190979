"""The `cissod-bench` program: it registers the commands, nothing else."""

import errno
import io
import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from cissod_bench.cli import list as list_command
from cissod_bench.cli.compare import compare
from cissod_bench.cli.console import say
from cissod_bench.cli.create import app as create_app
from cissod_bench.cli.data import app as data_app
from cissod_bench.cli.doctor import doctor
from cissod_bench.cli.errors import errors
from cissod_bench.cli.eval import evaluate_predictions
from cissod_bench.cli.export import export
from cissod_bench.cli.layout.panels import PanelApp
from cissod_bench.cli.make_splits import make_splits
from cissod_bench.cli.predict import predict
from cissod_bench.cli.publishing import check_results, submit
from cissod_bench.cli.report import report
from cissod_bench.cli.run import run
from cissod_bench.cli.splits import app as splits_app
from cissod_bench.cli.sweep import sweep
from cissod_bench.errors import ProcessDied, Remark, Stopped, UserError, printable
from cissod_bench.extras import remedy_of_import
from cissod_bench.version import __version__

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""

app = PanelApp(name="cissod-bench", pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"cissod-bench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Benchmark for class-imbalanced semi-supervised object detection: splits, training, leaderboard."""


DATA, TRAINING, RESULTS, HELP = "Data and splits", "Training", "Results", "Help"

app.add_typer(data_app, name="data", rich_help_panel=DATA)
app.command("make-splits", rich_help_panel=DATA)(make_splits)
app.add_typer(splits_app, name="splits", rich_help_panel=DATA)
app.command("run", rich_help_panel=TRAINING)(run)
app.command("sweep", context_settings={"ignore_unknown_options": True}, rich_help_panel=TRAINING)(sweep)
app.command("predict", rich_help_panel=TRAINING)(predict)
app.command("export", rich_help_panel=TRAINING)(export)
app.command("eval", rich_help_panel=RESULTS)(evaluate_predictions)
app.command("report", rich_help_panel=RESULTS)(report)
app.command("compare", rich_help_panel=RESULTS)(compare)
app.command("errors", rich_help_panel=RESULTS)(errors)
app.command("submit", rich_help_panel=RESULTS)(submit)
app.command("check-results", rich_help_panel=RESULTS)(check_results)
app.add_typer(list_command.app, name="list", rich_help_panel=HELP)
app.add_typer(create_app, name="create", rich_help_panel=HELP)
app.command("doctor", rich_help_panel=HELP)(doctor)


def main() -> None:
    """Run the program. A user's mistake ends it with one sentence on standard error and exit code 2."""
    _settle_terminal()
    _print_remarks()
    try:
        app()
    except UserError as error:
        _stop(str(error))
    except ImportError as error:
        remedy = remedy_of_import(error)
        if remedy is None:
            raise
        _stop(remedy)
    except OSError as error:
        # A full disk or missing permission. Without a file name it was standard output, or a bug of ours.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _stop(f"{error.filename or 'standard output'}: {error.strerror}.")
    except Stopped as stopped:
        _end_line_of_interrupt(stopped.exit_code)
        say(str(stopped), err=True)
        sys.exit(stopped.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # as typer ends a command that knows nothing of interrupts
            _end_line_of_interrupt(INTERRUPTED)
            say("Interrupted.", err=True)
        raise
    except ProcessDied as died:
        say(str(died), err=True, color=typer.colors.RED)
        sys.exit(1)


def _end_line_of_interrupt(exit_code: int) -> None:
    """The terminal shows ^C without ending the line."""
    if exit_code == INTERRUPTED and sys.stderr.isatty():
        say("", err=True)


def _settle_terminal() -> None:
    """Let no letter and no width stop the output: what an encoding lacks is escaped, columns are a positive number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0").isdecimal():
            del os.environ[name]


def _print_remarks() -> None:
    """Have remarks printed as sentences, without the line of source that Python adds to warnings."""
    show = warnings.showwarning

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Remark):
            say(f"Note: {message}", err=True, color=typer.colors.YELLOW)
        else:
            show(printable(str(message)), category, *where, **more)

    warnings.showwarning = shown
    warnings.simplefilter("always", Remark)


def _stop(message: str) -> None:
    say(f"Error: {message}", err=True, color=typer.colors.RED)
    sys.exit(2)


if __name__ == "__main__":
    main()
