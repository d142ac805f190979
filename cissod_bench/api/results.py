"""Results: load, tabulate, compare, and ask what is wrong with them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.api.paths import AnyPath, optional, paths, some_paths

if TYPE_CHECKING:
    from cissod_bench.leaderboard.comparison import Comparison
    from cissod_bench.leaderboard.errors import RunErrors
    from cissod_bench.leaderboard.report import Report
    from cissod_bench.leaderboard.setting import Standards
    from cissod_bench.results.collection import Results

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def load_results(folders: AnyPath | Sequence[AnyPath]) -> "Results":
    """Load all records below some folders; damaged and foreign ones are skipped and listed in `rejected`.

    Args:
        folders: run folders, or folders that contain them at any depth.

    Raises:
        UserError: a folder that does not exist, or no usable record in any of them.

    Examples:
        >>> import cissod_bench as cb
        >>> frame = cb.load_results("runs").to_frame()
        >>> list(frame["group"])
        ['all', 'maj', 'min']
    """
    from cissod_bench.results.collection import collect_results

    return collect_results(some_paths(folders))


def report(
    folders: AnyPath | Sequence[AnyPath] = (),
    out: AnyPath | None = None,
    *,
    metric: str = "AP",
    bootstrap: int = 0,
    baseline: str = "soft-teacher",
    published: bool = False,
    overwrite: bool = False,
    progress: Progress = iter,
) -> "Report":
    """Make the leaderboard of finished runs, with the paper's numbers beside those in its setting.

    Args:
        folders: run folders, or folders that contain them at any depth; may be left out with `published`.
        out: folder for the report's files (Markdown, LaTeX, CSV, JSON, HTML, plots); None to write nothing.
        metric: AP, AP50, AP75, APs, APm, APl or AR.
        bootstrap: bootstrap samples over images, for intervals and significance marks; 0 for none.
        baseline: method that the marks of difference refer to.
        published: add the published runs (docs/submitting.md) that are comparable with one in `folders`; without
            `folders`, all of them.
        overwrite: replace the files of an earlier report.
        progress: wraps the loop over samples.

    Raises:
        UserError: no usable record, or a file that exists with other content.

    Examples:
        >>> import cissod_bench as cb
        >>> made = cb.report("runs", "report")
        >>> [run_set.task for run_set in made.run_sets]
        ['shapes']
    """
    from cissod_bench.leaderboard.report import make_report, write_report
    from cissod_bench.results.published import published_folder

    made = make_report(
        paths(folders),
        metric=metric,
        samples=bootstrap,
        baseline=baseline,
        variants=paper_variants(),
        standards=standards(),
        published=published_folder() if published else None,
        progress=progress,
    )
    if out is not None:
        write_report(made, Path(out), overwrite=overwrite)
    return made


def paper_variants() -> dict[tuple[int, str], tuple[str, dict[str, Any]]]:
    """(table, row) of the paper's ablations -> method and the options in which it differs from the method's defaults.

    The last row of Table 4 is gbs with its defaults, so options that equal that row's do not count as changed.
    """
    from cissod_bench.methods.gbs.ablations import ABLATIONS

    defaults = ABLATIONS["crs-gbt-gbr"].options
    return {
        (ablation.table, ablation.title): (
            ablation.method,
            {name: value for name, value in ablation.options.items() if defaults.get(name) != value},
        )
        for ablation in ABLATIONS.values()
    }


def standards() -> "Standards":
    """The methods of this package as they are today: name -> version and the default of every option."""
    from cissod_bench.leaderboard.setting import Standard
    from cissod_bench.methods.options import resolved_options
    from cissod_bench.methods.registry import METHODS

    return {name: Standard(method.version, resolved_options(method, {})) for name, method in METHODS.items()}


def compare(
    first: AnyPath,
    second: AnyPath,
    *,
    annotations: AnyPath | None = None,
    samples: int = 1000,
    seed: int = 0,
    progress: Progress = iter,
) -> "Comparison":
    """Compare two runs per group and class, with 95 % intervals from a paired bootstrap over images.

    Args:
        first: run folder A.
        second: run folder B.
        annotations: ground truth. Default: the file named in the first record.
        samples: bootstrap samples.
        seed: seed of the bootstrap.
        progress: wraps the loop over samples.

    Raises:
        UserError: the runs are not comparable, or the ground truth is not there.

    Examples:
        >>> import cissod_bench as cb
        >>> found = cb.compare("runs/soft-teacher", "runs/soft-teacher", samples=10)
        >>> found.groups["all"][2].value  # B - A
        0.0
    """
    from cissod_bench.leaderboard.comparison import compare_runs

    one, other = Path(first), Path(second)
    return compare_runs(one, other, annotations=optional(annotations), samples=samples, seed=seed, progress=progress)


def error_types(
    run: AnyPath,
    out: AnyPath | None = None,
    *,
    annotations: AnyPath | None = None,
    min_score: float = 0.3,
    overwrite: bool = False,
) -> "RunErrors":
    """Count a run's errors by TIDE's types and class group, and what the objects of each group are taken for.

    Args:
        run: run folder.
        out: folder for plots (PNG and SVG); None to write nothing.
        annotations: ground truth. Default: the file named in the run's record.
        min_score: detections below this score do not count in the confusion of groups.
        overwrite: replace existing plots.

    Raises:
        UserError: no record, no ground truth, or a plot that exists with other content.

    Examples:
        >>> import cissod_bench as cb
        >>> found = cb.error_types("runs/soft-teacher")
        >>> list(found.confusion)
        ['maj', 'min']
    """
    from cissod_bench.leaderboard.errors import errors_of, write_plots

    found = errors_of(Path(run), annotations=optional(annotations), min_score=min_score)
    if out is not None:
        write_plots(found, Path(out), overwrite=overwrite)
    return found
