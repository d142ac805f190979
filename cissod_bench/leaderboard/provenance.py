"""What readers must know of where the runs of a row come from: other versions, uncommitted changes, what is missing."""

from collections.abc import Sequence

from cissod_bench.io import canonical_json
from cissod_bench.results.record import Result

DIRTY = "‡"
"""Mark of a row with a run of a source tree that had uncommitted changes."""
INCOMPLETE = "§"
"""Mark of a row with a run whose record lacks something of its method, program or ground truth."""


def marks(results: Sequence[Result]) -> str:
    """The marks of a row, in the order of its notes; empty for most."""
    return DIRTY * bool(_dirty(results)) + INCOMPLETE * bool(_incomplete(results))


def provenance_notes(label: str, results: Sequence[Result]) -> list[str]:
    """Notes on one row: versions that differ between its runs, uncommitted changes, records that lack something.

    Args:
        label: of the row.
        results: records of its runs.
    """
    notes = [f"{label}: not all runs have the same {difference}." for difference in _differences(results)]
    if _dirty(results):
        notes.append(f"{DIRTY} {label}: source tree with uncommitted changes ({_seeds(_dirty(results))}).")
    by_lack: dict[str, list[Result]] = {}
    for result in _incomplete(results):
        by_lack.setdefault(", ".join(_lacking(result)), []).append(result)
    notes += [f"{INCOMPLETE} {label}: not recorded: {lack} ({_seeds(those)})." for lack, those in by_lack.items()]
    return notes


def equal_rows_notes(rows: Sequence[tuple[str, Sequence[Result]]]) -> list[str]:
    """Notes on rows of which runs with one seed have the same numbers, which two methods hardly ever have.

    Args:
        rows: for each row its label and the records of its runs.
    """
    labels: dict[str, dict[str, None]] = {}
    for label, results in rows:
        for result in results:
            if any(value for metrics in result.metrics.values() for value in metrics.values()):
                labels.setdefault(canonical_json([result.key.train_seed, result.metrics]), {})[label] = None
    alike = dict.fromkeys(tuple(each) for each in labels.values() if len(each) > 1)
    return [
        f"{' and '.join(each)}: the same numbers to the last bit, as copies of one run would have." for each in alike
    ]


def _lacking(result: Result) -> list[str]:
    """What a record should say and does not. Of a source tree an installed package knows nothing."""
    there = {
        "version of the method": result.key.method_version is not None,
        "options of the method in full": result.key.resolved_options is not None,
        "version of cissod-bench": result.package_version is not None,
        "versions of the libraries": bool(result.environment),
        "size of the data": result.data is not None,
        "ground truth": result.annotations_digest is not None,
    }
    return [name for name, known in there.items() if not known]


def _differences(results: Sequence[Result]) -> list[str]:
    """What differs, as "torch: 2.10 (seed 0), 2.11 (seeds 1, 2)"."""
    facts = [
        {
            "version of cissod-bench": result.package_version,
            "commit": result.git.commit[:12] if result.git else None,
            **result.environment,
        }
        for result in results
    ]
    found = []
    for name in dict.fromkeys(name for each in facts for name in each):
        by_value: dict[str, list[Result]] = {}
        for result, each in zip(results, facts, strict=True):
            by_value.setdefault(str(each.get(name) or "not recorded"), []).append(result)
        if len(by_value) > 1:
            listed = ", ".join(f"{value} ({_seeds(of_value)})" for value, of_value in by_value.items())
            found.append(f"{name}: {listed}")
    return found


def _dirty(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.git is not None and result.git.dirty]


def _incomplete(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if _lacking(result)]


def _seeds(results: Sequence[Result]) -> str:
    seeds = ["unknown" if result.key.train_seed is None else str(result.key.train_seed) for result in results]
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
