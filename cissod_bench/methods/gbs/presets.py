"""Named sets of options: the values of the authors' release of gbs, where they differ from the paper's.

The release's configurations differ by data set, so a preset is looked up with the task's data set. What is not a value
is not here: the release's dropped remainder of a batch, its pool that is 4,000 iterations old, and unlabelled images
filtered by their hidden boxes (spec: artefacts) are not reproduced; its learning rate without decay is a matter of the
schedule, which is the same for all methods.
"""

from collections.abc import Mapping
from typing import Any

from cissod_bench.errors import unknown_name

_RELEASE: dict[str, Any] = {
    "eta_g": 0.999**2,  # two updates with 0.999 in an iteration, one per branch
    "eta_p": 0.999,
    "cold_start": "count",
    "count_only_pseudo": True,
    "generations": 180_000 / 16_000,
}
_RELEASE_LONG_TAIL: dict[str, Any] = {**_RELEASE, "beta": 0.8, "threshold": "score"}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "release": {
        "coco": _RELEASE,
        "objects365": {
            **_RELEASE_LONG_TAIL,
            "generations": 360_000 / 36_000,
            "gbr_warmup": 12_000 / 360_000,
            "threshold_warmup": 32_000 / 360_000,
        },
        "lvis": {**_RELEASE_LONG_TAIL, "threshold_warmup": 16_000 / 180_000},
    }
}
"""Preset -> data set -> options of gbs. The configurations of Objects365 and LVIS switch GbT off: theta^c alone."""


def preset_options(name: str, dataset: str) -> dict[str, Any]:
    """Options of gbs under a preset, for a task's data set; data sets the release does not know have COCO's.

    Raises:
        UserError: no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    by_dataset = PRESETS[name]
    return dict(by_dataset.get(dataset, by_dataset["coco"]))
