"""What `splits show` prints."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.console import say
from cissod_bench.errors import one_line

if TYPE_CHECKING:
    from cissod_bench.splits.folder import Split

_PARTS = {"train": "original", "labeled": "D_l", "unlabeled": "D_u", "validation": "validation"}
_WIDE = 160  # columns where the output is not a terminal


def print_split(split: "Split", statistics: Mapping[str, Any]) -> None:
    """Print counts per group and class, imbalance ratios, remarks, and classes that occur with the rarest group."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cissod_bench.splits.statistics import GROUP_ORDER, remarks

    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    counts = split.counts
    say(
        f"{split.task}, protocol {split.protocol}, seed {split.seed}, digest {split.digest[:12]}\n"
        f"labelled {counts['labeled_images']:,} images (D_m {counts['majority_images']:,}, D_s "
        f"{counts['minority_images']:,}) with {counts['labeled_boxes']:,} boxes; "
        f"unlabelled {counts['unlabeled_images']:,}"
        + (f"; validation {counts['validation_images']:,}" if counts["validation_images"] else "")
    )
    parts = [part for part in _PARTS if part in statistics["imbalance_ratio"]]
    columns = [(part, unit) for part in parts for unit in ("images", "boxes")]
    official = any(row["official_frequency"] for row in statistics["classes"])
    table = Table("group", "class", *(["official"] if official else []))
    for part, unit in columns:
        table.add_column(f"{_PARTS[part]}\n{unit}", justify="right")
    groups = sorted(statistics["groups"].items(), key=lambda item: GROUP_ORDER.index(item[0]))
    for name, row in groups:
        number = f"{row['classes']} class{'' if row['classes'] == 1 else 'es'}"
        cells = [f"[bold]{row[f'{part}_{unit}']:,}" for part, unit in columns]
        table.add_row(Text(one_line(name)), f"[bold]{number}", *([""] if official else []), *cells)
    table.add_section()
    for row in sorted(statistics["classes"], key=lambda row: (-row["labeled_images"], row["name"])):
        cells = [f"{row[f'{part}_{unit}']:,}" for part, unit in columns]
        table.add_row(
            Text(row["group"]),
            Text(one_line(row["name"])),
            *([row["official_frequency"] or "-"] if official else []),
            *cells,
        )
    console.print(table)
    ratios = (f"{_PARTS[part]} {_ratio(statistics['imbalance_ratio'][part])}" for part in parts)
    say(f"images of the most frequent class / images of the least frequent class present: {', '.join(ratios)}")
    if official:
        _print_official(statistics, [name for name, _ in groups])
    for remark in remarks(statistics):
        say(remark)
    together = statistics["co_occurrence"]
    if together:
        table = Table("class", "most frequent in its labelled images", title="classes that occur with the rarest group")
        for name, others in together.items():
            listed = ", ".join(f"{other} {share:.0%}" for other, share in others)
            table.add_row(Text(one_line(name)), Text(one_line(listed)))
        console.print(table)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_official(statistics: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Compare LVIS's official groups, from its whole training set, with the groups counted in D_l."""
    pairs = Counter((row["official_frequency"], row["group"]) for row in statistics["classes"])
    for frequency in ("f", "c", "r"):
        found = {group: pairs[frequency, group] for group in groups}
        inside = ", ".join(f"{count} {group}" for group, count in found.items())
        say(f"{sum(found.values())} classes officially {frequency} are in D_l: {inside}")
