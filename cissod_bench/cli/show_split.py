"""What `splits show` prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.console import print_table, say
from cissod_bench.leaderboard.table import Cell, Column, Table, Value
from cissod_bench.words import counted

if TYPE_CHECKING:
    from cissod_bench.splits.folder import Split

_PARTS = {"train": "original", "labeled": "D_l", "unlabeled": "D_u", "validation": "validation"}


def print_split(split: "Split", statistics: Mapping[str, Any]) -> None:
    """Print counts per group and class, imbalance ratios, remarks, and classes that occur with the rarest group."""
    from cissod_bench.splits.statistics import GROUP_ORDER, remarks

    counts = split.counts
    say(
        f"{split.task}, protocol {split.protocol}, seed {split.seed}, digest {split.digest[:12]}\n"
        f"labelled {counted(counts['labeled_images'], 'image')} (D_m {counts['majority_images']:,}, D_s "
        f"{counts['minority_images']:,}) with {counts['labeled_boxes']:,} boxes; "
        f"unlabelled {counts['unlabeled_images']:,}"
        + (f"; validation {counts['validation_images']:,}" if counts["validation_images"] else "")
    )
    parts = [part for part in _PARTS if part in statistics["imbalance_ratio"]]
    measured = [(part, unit) for part in parts for unit in ("images", "boxes")]
    official = any(row["official_frequency"] for row in statistics["classes"])
    columns = [Column("class", "class"), Column("group", "group")]
    columns += [Column("official", "official")] if official else []
    columns += [Column(f"{part}_{unit}", unit, _PARTS[part], "count") for part, unit in measured]
    groups = sorted(statistics["groups"].items(), key=lambda item: GROUP_ORDER.index(item[0]))
    lines = [
        (
            f"all {row['classes']}",
            name,
            *([""] if official else []),
            *(row[f"{part}_{unit}"] for part, unit in measured),
        )
        for name, row in groups
    ]
    lines += [
        (
            row["name"],
            row["group"],
            *([row["official_frequency"] or "-"] if official else []),
            *(row[f"{part}_{unit}"] for part, unit in measured),
        )
        for row in sorted(statistics["classes"], key=lambda row: (-row["labeled_images"], row["name"]))
    ]
    _print("Images and boxes of groups and classes", columns, lines)
    ratios = (f"{_PARTS[part]} {_ratio(statistics['imbalance_ratio'][part])}" for part in parts)
    say(f"images of the most frequent class / images of the least frequent class present: {', '.join(ratios)}")
    if official:
        _print_official(statistics, [name for name, _ in groups])
    for remark in remarks(statistics):
        say(remark)
    together = statistics["co_occurrence"]
    if together:
        columns = [Column("class", "class"), Column("others", "most frequent in its labelled images")]
        lines = [
            (name, ", ".join(f"{other} {share:.0%}" for other, share in others)) for name, others in together.items()
        ]
        _print("Classes that occur with the rarest group", columns, lines)


def _print(title: str, columns: Sequence[Column], lines: Sequence[Sequence[Value]]) -> None:
    rows = tuple(tuple(map(Cell, line)) for line in lines)
    print_table(Table("split", title, "", tuple(columns), rows, ranked=0))


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_official(statistics: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Compare LVIS's official groups, from its whole training set, with the groups counted in D_l."""
    pairs = Counter((row["official_frequency"], row["group"]) for row in statistics["classes"])
    for frequency in ("f", "c", "r"):
        found = {group: pairs[frequency, group] for group in groups}
        inside = ", ".join(f"{count} {group}" for group, count in found.items())
        say(f"{sum(found.values())} classes officially {frequency} are in D_l: {inside}")
