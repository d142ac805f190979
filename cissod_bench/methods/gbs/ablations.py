"""The paper's ablations as named presets: the nine rows of Table 4 and the six of Table 5.

Rows without GbR and FL use cross entropy (gamma = 0), so that the first row is Soft Teacher. GbT alone needs the class
weights: the gradient matrix is then kept without weighing the loss. Table 5 changes the threshold on top of GbR + CrS.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cissod_bench.errors import unknown_name


@dataclass(frozen=True)
class Ablation:
    """One row of an ablation table.

    Attributes:
        name: what the command line calls it.
        table: 4 or 5.
        row: position in the table, from 0.
        title: the row as `leaderboard.paper` has it.
        method: method of the registry.
        options: its options.
    """

    name: str
    table: int
    row: int
    title: str
    method: str
    options: Mapping[str, Any]


def _parts(gamma: float, gbr: bool, threshold: str, crs: bool) -> dict[str, Any]:
    return {"gamma": gamma, "gbr": gbr, "threshold": threshold, "crs": crs}


_TABLE_4: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("none", "none", "soft-teacher", {}),
    ("fl", "FL", "gbs", _parts(1.0, False, "fixed", False)),
    ("crs", "CrS", "gbs", _parts(0.0, False, "fixed", True)),
    ("gbt", "GbT", "gbs", _parts(0.0, False, "gbt", False)),
    ("gbr", "GbR", "gbs", _parts(1.0, True, "fixed", False)),
    ("gbt-gbr", "GbT + GbR", "gbs", _parts(1.0, True, "gbt", False)),
    ("crs-gbr", "CrS + GbR", "gbs", _parts(1.0, True, "fixed", True)),
    ("crs-gbt", "CrS + GbT", "gbs", _parts(0.0, False, "gbt", True)),
    ("crs-gbt-gbr", "CrS + GbT + GbR", "gbs", _parts(1.0, True, "gbt", True)),
)
_TABLE_5: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("threshold-0.5", "0.5", {"threshold": "fixed", "theta": 0.5}),
    ("threshold-0.9", "0.9", {"threshold": "fixed", "theta": 0.9}),
    ("threshold-score", "theta^c", {"threshold": "score"}),
    ("threshold-gradient", "theta^p", {"threshold": "gradient"}),
    ("threshold-labelmatch", "LabelMatch", {"threshold": "labelmatch"}),
    ("threshold-gbt", "GbT", {"threshold": "gbt"}),
)

ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        *(
            Ablation(name, 4, row, title, method, options)
            for row, (name, title, method, options) in enumerate(_TABLE_4)
        ),
        *(Ablation(name, 5, row, title, "gbs", options) for row, (name, title, options) in enumerate(_TABLE_5)),
    )
}


def get_ablation(name: str) -> Ablation:
    """The ablation of that name.

    Raises:
        UserError: no such ablation.
    """
    if name not in ABLATIONS:
        raise unknown_name("ablation", name, ABLATIONS)
    return ABLATIONS[name]
