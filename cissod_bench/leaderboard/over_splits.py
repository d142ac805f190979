"""One row for several splits of a task: the mean over split seeds or folds, training seeds averaged inside each.

A mean is over splits that were made in one way from the same images: with the seeds 0, 1, 2, ... of one rule, as the
folds of one division, or from lists of the same number of images. Records that do not say how their split was made
have no mean over splits.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cissod_bench.io import canonical_json
from cissod_bench.leaderboard.comparable import Row, RunSet, Spread, labelled, spread
from cissod_bench.leaderboard.names import file_name
from cissod_bench.leaderboard.provenance import marks, provenance_notes
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.results.record import Result

_OF_SPLIT = ("split_digest", "split_seed", "ground_truth", "class_groups")
"""Fields in which the splits of a task differ; folds differ in their validation images as well."""


def over_splits(run_sets: Sequence[RunSet], *, metric: str = "AP") -> list[Table]:
    """A table for each group of at least two sets of runs that differ in their split alone.

    Args:
        run_sets: sets of comparable runs.
        metric: one of `evaluation.METRICS`.
    """
    families: dict[str, list[RunSet]] = {}
    for run_set in run_sets:
        kind = kind_of_split(run_set)
        if kind is not None:
            families.setdefault(canonical_json([without_split(run_set), run_set.groups, kind]), []).append(run_set)
    found = [family for family in families.values() if _differ(family)]
    titles = [_title(family) for family in found]
    return [
        _table(family, metric, title if titles.count(title) == 1 else f"{title} from {_digest(family[0])}")
        for family, title in zip(found, titles, strict=True)
    ]


def without_split(run_set: RunSet) -> dict[str, Any]:
    """The fields of a set that do not depend on its split."""
    return {name: value for name, value in run_set.fields.items() if name not in _OF_SPLIT}


def label_fraction(run_set: RunSet) -> float | None:
    """The labelled fraction of a set's split; None where no record says it. Means are never over several."""
    found = {run.result.label_fraction for row in run_set.rows for run in row.runs} - {None}
    return found.pop() if len(found) == 1 else None


def same_over_splits(row: Row) -> str:
    """Equal for rows of several splits that are one method, version and value of every option."""
    resolved = row.results[0].key.resolved_options
    return canonical_json([row.method, dict(row.options), row.version, resolved, row.published])


def kind_of_split(run_set: RunSet) -> list[Any] | None:
    """What splits must agree in for a mean over them; None where the records do not say it.

    Folds have one seed and validation images of their own, other splits the validation images in common. Seeds label
    about as many images as each other; of imported lists nothing but the number says that they do.
    """
    made = _made(run_set)
    if made is None or made.split_options is None or made.data is None:
        return None
    options = dict(made.split_options)
    fold = options.pop("fold", None)
    sizes = [made.data.get(name) for name in ("train_images", "train_annotations")]
    labeled = made.data.get("labeled_images") if options.get("imported") else None
    apart = [fold[1], run_set.fields["split_seed"]] if fold else run_set.fields["ground_truth"]
    return [options, sizes, labeled, apart]


def _made(run_set: RunSet) -> Result | None:
    """A record that says how the split of a set was made."""
    known = (each for each in _results(run_set.rows) if each.split_options is not None and each.data is not None)
    return next(known, None)


def _differ(family: Sequence[RunSet]) -> bool:
    """Whether the sets are of splits of their own; two of one split differ in the ground truth, and are no sample."""
    digests = {run_set.fields["split_digest"] for run_set in family}
    return 1 < len(family) == len(digests)


def _results(rows: Sequence[Row]) -> list[Result]:
    return [result for row in rows for result in row.results]


def _table(family: Sequence[RunSet], metric: str, title: str) -> Table:
    first = family[0]
    by_row: dict[str, list[Row]] = {}
    for run_set in family:
        for row in run_set.rows:
            if row.ranked:
                by_row.setdefault(same_over_splits(row), []).append(row)
    complete, notes = [], []
    for rows in by_row.values():
        label = rows[0].label
        if len(rows) < len(family):
            notes.append(f"{label}: has a mean on {len(rows)} of {len(family)} splits, so it is left out.")
        elif len({canonical_json([run.result.metrics for run in row.runs]) for row in rows}) < len(rows):
            notes.append(f"{label}: has the same numbers to the last bit on several splits, so it is left out.")
        else:
            complete.append((label, rows))
            notes += provenance_notes(label, _results(rows))
    found = [(label, rows, {group: _over(rows, group, metric) for group in first.groups}) for label, rows in complete]
    found.sort(key=lambda each: (-(mean.mean if (mean := each[2]["all"]) else -1.0), each[0]))
    columns = [Column("rank", "#", kind="rank"), Column("method", "Method"), Column("splits", "Splits", kind="count")]
    columns += [Column("seeds", "Seeds per split")]
    columns += [Column(f"{group}_{metric}", group, metric, "metric") for group in first.groups]
    body = []
    for index, (label, rows, means) in enumerate(found):
        seeds = sorted({len(row.runs) for row in rows})
        marked = label + ("†" if first.shortened else "") + marks(_results(rows))
        cells = [Cell(index + 1), Cell(marked), Cell(len(rows)), Cell("–".join(map(str, dict.fromkeys(seeds))))]
        cells += [Cell(None) if mean is None else Cell(mean.mean, mean.std) for mean in means.values()]
        body.append(tuple(cells))
    splits = sorted((str(each.fields["split_seed"]), _digest(each)) for each in family)
    listed = ", ".join(f"{digest} (seed {seed})" for seed, digest in splits)
    shortened = ["† Shortened schedule: not the length that the protocol asks for."] if first.shortened else []
    return Table(
        name=file_name(f"{title}-{_digest(first)[:8]}"),
        title=title,
        caption=f"{metric} in percent: mean ± standard deviation over splits, of which each is a mean over its seeds.",
        columns=tuple(columns),
        rows=tuple(body),
        ranked=len(body),
        notes=(f"Splits: {listed}.", *shortened, *notes),
    )


def _title(family: Sequence[RunSet]) -> str:
    """The title of the sets without what is their split's, the labelled part, and how many splits there are."""
    first = family[0]
    known = {name: text for name, text in first.distinction.items() if name not in _OF_SPLIT}
    known["labelled"] = labelled(first)
    made = _made(first)
    options = (made and made.split_options) or {}
    what = f"{len(family)} of {options['fold'][1]} folds" if options.get("fold") else f"{len(family)} splits"
    return f"{replace(first, distinction=known).title}: {what}"


def _digest(run_set: RunSet) -> str:
    return str(run_set.fields["split_digest"])[:12]


def _over(rows: Sequence[Row], group: str, metric: str) -> Spread | None:
    """Mean and spread over splits of the means over training seeds; None where one is not defined."""
    means = [found.mean for row in rows if (found := row.spread(group, metric)) is not None]
    return spread(means) if len(means) == len(rows) else None
