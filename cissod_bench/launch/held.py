"""Which run a folder holds, and where it differs from the one that is asked for.

Both are told by the names of a record's key (`results/record.py`): reading records and texts takes milliseconds,
while resolving a job loads mmdet and reads the data.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import in_use
from cissod_bench.results.record import IN_USE, RESULT_FILE, load_result

CONFIG_FILE = "config.py"
_IN_RECORDS = {"seed": "train_seed", "options": "method_options"}
"""What has another name in a configuration's `run` (`training/identity.py`) than in a record."""


def held_run(out: Path) -> dict[str, Any] | None:
    """What the run in a folder is a run of; None where a run can start.

    A finished run has its record. One that is under way, or has a checkpoint to go on from, has its configuration,
    which says less. Anything else in a run folder is replaced by the next run there.

    Raises:
        UserError: the record or the configuration is damaged.
    """
    if (out / RESULT_FILE).exists():
        return dict(msgspec.to_builtins(load_result(out / RESULT_FILE).key))
    started = in_use(out / IN_USE) or any((out / "checkpoints").glob("iter_*.pth"))
    return _configured(out / CONFIG_FILE) if started and (out / CONFIG_FILE).is_file() else None


def _configured(path: Path) -> dict[str, Any]:
    try:
        for statement in ast.parse(path.read_text()).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="run")], value=value):
                    return {_IN_RECORDS.get(name, name): fact for name, fact in ast.literal_eval(value).items()}
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not the configuration of a run ({error}).") from None
    raise UserError(f"{path}: not the configuration of a run (it has no `run`).")


def differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Where a run differs from the one that is asked for, in words; "" where both say the same.

    Args:
        held: what is known of the run that is there.
        asked: what is asked for; what either of them does not say is not compared.
    """
    common = [name for name in asked if name in held]
    old = dict(_flat("", {name: held[name] for name in common}))
    new = dict(_flat("", {name: asked[name] for name in common}))
    return "; ".join(
        f"{name}: {_shown(old, name)} there, {_shown(new, name)} asked for"
        for name in dict.fromkeys([*new, *old])
        if name not in old or name not in new or old[name] != new[name]
    )


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted name -> value, with lists for tuples, as JSON has them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def _shown(facts: Mapping[str, Any], name: str) -> str:
    if name not in facts:
        return "nothing"
    value = facts[name]
    return repr(value[:12] if isinstance(value, str) and len(value) == 64 else value)  # a digest is long
