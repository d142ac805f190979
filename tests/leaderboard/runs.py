"""Made-up records."""

from typing import Any

import msgspec

from cissod_bench.evaluation import METRICS
from cissod_bench.leaderboard.setting import Standard
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import Group, Result
from cissod_bench.results.run_key import RunKey
from cissod_bench.tasks.registry import TASKS

SIZES = {"all": 12, "maj": 8, "min": 4}
COCO_CLASSES = {"all": 80, "maj": 60, "min": 20}
STANDARDS = {name: Standard(2, {}) for name in METHODS}
"""Today's methods as far as made-up records are concerned: version 2, no options."""


OFFICIAL_COCO = {
    "train_images": 118_287, "train_annotations": 860_001, "validation_images": 5_000, "validation_annotations": 36_781,
}  # fmt: skip


def make_record(ap: dict[str, float] | None = None, **key: Any) -> Result:
    """A record whose metrics are all `ap` of the group; `key` overrides fields of the key.

    AR is larger by a millionth of the training seed, since two seeds never give the same numbers to the last bit.
    """
    ap = ap or {"all": 0.2, "maj": 0.25, "min": 0.1}
    fields: dict[str, Any] = {
        "task": "shapes",
        "protocol": 1,
        "split_digest": "d" * 64,
        "split_seed": 0,
        "train_seed": 0,
        "method": "soft-teacher",
        "method_options": {},
        "schedule": "short",
        "iterations": 800,
        "shortened": False,
        "detector": "r18-quarter",
        "evaluator": "hotcoco",
        "max_detections": 100,
        "method_version": 2,
        "resolved_options": {},
    }
    fields |= key
    seed = fields["train_seed"] or 0
    return Result(
        key=RunKey(**fields),
        metrics={group: dict.fromkeys(METRICS, value) | {"AR": value + 1e-6 * seed} for group, value in ap.items()},
        groups={group: Group(SIZES.get(group, 4), 0) for group in ap},
        annotations_digest="a" * 64,
        package_version="0.2.0",
        environment={"torch": "2.11.0"},
        data={"train_images": 1500, "train_annotations": 4716, "labeled_images": 116},
        split_options=TASKS["shapes"].split_options,
    )


def paper_record(ap: dict[str, float] | None = None, **key: Any) -> Result:
    """A record of `coco-split1` in the paper's setting; `key` overrides fields of the key."""
    fields: dict[str, Any] = {
        "task": "coco-split1", "detector": "r50-fpn", "schedule": "paper", "iterations": 180_000, "batch": (8, 32),
        "backbone": "5891d200".ljust(64, "b"),
    }  # fmt: skip
    record = make_record(ap, **(fields | key))
    return msgspec.structs.replace(
        record,
        data=OFFICIAL_COCO,
        split_options=TASKS["coco-split1"].split_options,
        groups={group: Group(COCO_CLASSES.get(group, 20), 0) for group in record.groups},
    )
