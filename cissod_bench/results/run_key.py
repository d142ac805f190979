"""What a run is: its key, how two keys differ, and which keys belong together.

Two notions of "the same":

* runs with an equal `comparison_key` stand in one table: same task and protocol, split, schedule, detector, evaluator
  and rules. They differ in the method, its options, and the training seed;
* runs with an equal `replicate_key` differ in the training seed alone: their spread is the spread over seeds.

A key is computed from what the user asks for (`training/spec.py`), stands in the configuration of the run and in its
record, and is compared wherever two runs meet. A new fact is a new field with a default that older runs had.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec

from cissod_bench.io import canonical_json

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = get_args(Precision)
NOT_STATED = "not stated"
"""In place of a digest that is not known, where None has another meaning."""


class RunKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a result is a result of.

    Attributes:
        task: name of the task; `protocol` its version.
        split_digest: digest of the split folder's manifest.
        split_seed: seed of the split; None where the split was not selected by this program.
        train_seed: seed of the training; None where it is not known. Such a run is never averaged with others.
        method: name of the method; `method_options` what was changed from its defaults. `method_digest` is the SHA-256
            of the source of a user's own method, None for the methods of this package: two files that give their
            methods one name are two methods.
        method_version: `Method.version`, and `resolved_options` the value of every option; both None where they are
            not known: in records before schema 3, and for methods of other programs.
        schedule: name of the schedule; `iterations` its length.
        shortened: trained for less than the protocol asks; such rows are marked. None where it is not known.
        batch: labelled and unlabelled images in a step over all GPUs; None where it is not known. It is the setting's,
            so that methods without unlabelled images are comparable; they leave out the second number.
        accumulate: batches whose gradients are summed up to one step. It says how `batch` came about, not what it is.
        detector: name of the detector. `detector_digest` is the SHA-256 of what a user's own detector file says, None
            for a preset: two files of one name are two detectors.
        backbone: SHA-256 of the file with the backbone's first weights, None for training from scratch, `NOT_STATED`
            where it is not known.
        precision: of the training (`ssod/precision.py`); None where it is not known. Version 0.1 noted `amp` alone.
        padding: sides of padded images are multiples of this number of pixels; None where it is not known.
        compile: whether the detector's backbone was compiled.
        overrides: settings of the resolved configuration that were set otherwise, by dotted name.
        evaluator: backend of the evaluation; `rules` whose matching rules it followed.
        max_detections: detections per image that counted.
        validation_digest: SHA-256 of the file with the validation annotations; None where it is not known. Tables go
            by the content of the annotations instead (`Result.annotations_digest`).
    """

    task: str
    protocol: int
    split_digest: str
    split_seed: int | None
    train_seed: int | None
    method: str
    method_options: dict[str, Any]
    schedule: str
    iterations: int
    shortened: bool | None
    detector: str
    evaluator: str
    max_detections: int
    rules: Literal["coco", "lvis"] = "coco"
    batch: tuple[int, int] | None = None
    accumulate: int = 1
    backbone: str | None = None
    method_digest: str | None = None
    detector_digest: str | None = None
    precision: Precision | None = None
    padding: int | None = None
    compile: bool = False
    overrides: dict[str, Any] = {}
    validation_digest: str | None = None
    method_version: int | None = None
    resolved_options: dict[str, Any] | None = None

    @property
    def batches(self) -> int:
        """Length of the training in batches, of which `accumulate` make an iteration: a step of the optimiser."""
        return self.iterations * self.accumulate


Facts = Mapping[str, Any]
"""Fields of a key by name, as JSON has them; those that an earlier version did not note are missing."""

_MAY_BE_UNKNOWN = ("validation_digest", "precision", "padding", "method_version", "resolved_options")
"""Fields in which None stands for "not known"."""
_EARLIER = {"seed": "train_seed", "options": "method_options", "classes": None, "amp": "precision"}
"""Name in the configurations of version 0.1 -> name of the field; None where the split says it."""


def facts_of(key: RunKey) -> dict[str, Any]:
    """The fields of a key that are known."""
    return known_facts(msgspec.to_builtins(key))


def known_facts(content: Facts) -> dict[str, Any]:
    """Facts in the names of `RunKey`, whichever version wrote them, without those that are not known."""
    named = {_EARLIER.get(name, name): value for name, value in content.items()}
    return {name: value for name, value in named.items() if name and not (value is None and name in _MAY_BE_UNKNOWN)}


def key_differences(there: Facts, asked: Facts) -> list[str]:
    """How the run that is there differs from the requested one, in words; facts that only one has are skipped."""
    common = [name for name in asked if name in there]
    old = dict(flat("", {name: there[name] for name in common}))
    new = dict(flat("", {name: asked[name] for name in common}))
    different = [
        name for name in dict.fromkeys([*new, *old]) if name not in old or name not in new or old[name] != new[name]
    ]
    # An option that was given differs twice: as a changed one, and among all of them.
    twice = {name.replace("method_options.", "resolved_options.", 1) for name in different} - {*common}
    return [
        f"{name} is {_shown(old, name)}, not {_shown(new, name)}"
        for name in different
        if not (name.startswith("resolved_options.") and name in twice)
    ]


def comparison_key(key: RunKey) -> str:
    """Equal for runs that may stand in one table."""
    return canonical_json(comparison_fields(key))


def comparison_fields(key: RunKey) -> dict[str, Any]:
    """The fields that must agree for runs to stand in one table."""
    of_method = (name for name in RunKey.__struct_fields__ if name.startswith("method") or name == "resolved_options")
    apart = (*of_method, "train_seed", "validation_digest", "accumulate")
    return {name: value for name, value in msgspec.to_builtins(key).items() if name not in apart}


def replicate_key(key: RunKey) -> str:
    """Equal for runs that differ in the training seed alone."""
    apart = ("train_seed", "validation_digest", "accumulate")
    return canonical_json({name: value for name, value in msgspec.to_builtins(key).items() if name not in apart})


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted name -> value, with lists for tuples, as JSON has them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def _shown(facts: Facts, name: str) -> str:
    if name not in facts:
        return "unset"
    value = facts[name]
    return repr(f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else value)  # a digest is long
