"""Made-up records."""

from typing import Any

import msgspec

from cissod_bench.evaluation import METRICS
from cissod_bench.results.record import Group, Result
from cissod_bench.results.run_key import RunKey

SIZES = {"all": 12, "maj": 8, "min": 4}


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
    )


def paper_record(ap: dict[str, float] | None = None, **key: Any) -> Result:
    """A record of `coco-split1` in the paper's setting; `key` overrides fields of the key."""
    fields: dict[str, Any] = {
        "task": "coco-split1", "detector": "r50-fpn", "schedule": "paper", "iterations": 180_000, "batch": (8, 32),
        "backbone": "b" * 64,
    }  # fmt: skip
    return msgspec.structs.replace(make_record(ap, **(fields | key)), data=OFFICIAL_COCO)
