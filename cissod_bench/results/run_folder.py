"""A run folder: every file name, the lock and the state of it.

::

    config.py               the resolved configuration
    <timestamp>/            what mmengine says, in a folder for each start
    scalars.jsonl           losses, rates, times and AP over time, one line an interval
    console.txt             what libraries print
    checkpoints/            the last checkpoints; an unfinished run continues from the newest one
    detections.json         detections on the validation images, COCO's results format
    per_class.npz           unrounded precision and recall arrays of every class
    method.py               the source of a user's own method
    detector.py             the file of a user's own detector
    observables.jsonl       weights, thresholds and quality of pseudo labels over time (`diagnostics.py`)
    full_labels.json        all training labels, for the reference `full-labels` alone
    fixed_ap.json           LVIS's AP Fixed, on request
    validation_images.json  image list that the validation data set reads; annotations are for the evaluator alone
    in_use.lock             locked by the main process as long as the run is under way
    result.json             the record that `report` reads; written last, so a folder with it is a finished run
"""

import ast
import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import decode_json, in_use, lock, read_regular
from cissod_bench.results.record import RESULT_FILE, Result, load_result
from cissod_bench.results.run_key import facts_of, known_facts

NO_RUN = "{}: the folder is not empty and holds no run. Give another --out."
BUSY = "{}: a run is under way in this folder. Wait for it, or stop it."
NOT_RESUMABLE = "holds an unfinished run of version 0.1, whose methods sampled boxes in another way"

LARGEST_CONFIG = 2**26
"""Bytes of a configuration that is read."""


class _FixedAP(msgspec.Struct):
    metrics: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run at `path`, whether there is one yet or not."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def record(self) -> Path:
        """The record of a finished run."""
        return self.path / RESULT_FILE

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.py"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def console(self) -> Path:
        """What libraries print."""
        return self.path / "console.txt"

    @property
    def per_class(self) -> Path:
        """Precision and recall arrays."""
        return self.path / "per_class.npz"

    @property
    def detections(self) -> Path:
        """Detections on the validation images."""
        return self.path / "detections.json"

    @property
    def method(self) -> Path:
        """Copy of a user's own method."""
        return self.path / "method.py"

    @property
    def detector(self) -> Path:
        """Copy of the file of a user's own detector."""
        return self.path / "detector.py"

    @property
    def full_labels(self) -> Path:
        """All training labels, which only the reference `full-labels` trains on."""
        return self.path / "full_labels.json"

    @property
    def fixed_ap(self) -> Path:
        """LVIS's AP Fixed, where it was asked for."""
        return self.path / "fixed_ap.json"

    def fixed_ap_metrics(self) -> dict[str, dict[str, float | None]] | None:
        """LVIS's AP Fixed: group -> metric -> value in [0, 1]; None where it was not measured.

        Raises:
            UserError: the file is damaged.
        """
        if not self.fixed_ap.exists():
            return None
        return decode_json(read_regular(self.fixed_ap), _FixedAP, name=self.fixed_ap).metrics

    @property
    def validation_images(self) -> Path:
        """List of the validation images."""
        return self.path / "validation_images.json"

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.record.exists()

    @property
    def unused(self) -> bool:
        """Whether there is nothing in it, or what a run leaves that was killed at its very start."""
        at_start = (self._lock.name, f".{self.config.stem}.partial{self.config.suffix}")
        return all(path.name in at_start for path in self.path.iterdir())

    def config_text(self) -> str:
        """Text of the resolved configuration.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return read_regular(self.config, LARGEST_CONFIG).decode()
        except OSError as error:
            raise UserError(f"{self.config}: cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{self.config}: not the configuration of a run ({error}).") from None

    @property
    def in_use(self) -> bool:
        """Whether a run is under way."""
        return in_use(self._lock)

    @property
    def started(self) -> bool:
        """Whether a run is under way, or has left a checkpoint to continue from."""
        return self.in_use or any(self.checkpoints.glob("iter_*.pth"))

    def result(self) -> Result:
        """The record.

        Raises:
            UserError: there is none, or it is damaged.
        """
        return load_result(self.record)

    def held(self) -> dict[str, Any] | None:
        """What the run in the folder is a run of (`run_key.Facts`); None where any run can start.

        A finished run has its record. One that is under way, or has a checkpoint to continue from, has its
        configuration. Anything else in a run folder is replaced by the next run there.

        Raises:
            UserError: the record or the configuration is damaged.
        """
        if self.finished:
            return facts_of(self.result().key)
        return self.configured() if self.started and self.config.is_file() else None

    def configured(self) -> dict[str, Any]:
        """What the run is a run of, by its configuration.

        Raises:
            UserError: not the configuration of a run.
        """
        try:
            return configured_facts(parse_config(self.config_text()))
        except (SyntaxError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{self.config}: not the configuration of a run ({error}).") from None
        except KeyError:
            raise UserError(f"{self.config}: not the configuration of a run (it has no `run`).") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process, which makes it if need be.

        Raises:
            UserError: a run is under way there.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock(self._lock))
            except BlockingIOError:
                raise UserError(BUSY.format(self.path)) from None
            except OSError as error:  # a file system without locks
                warnings.warn(f"{self.path} cannot be locked ({error.strerror}).", stacklevel=3)
            yield

    @property
    def _lock(self) -> Path:
        return self.path / "in_use.lock"


def configured_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the run with a configuration is a run of, whichever version wrote it.

    Raises:
        KeyError: it does not say.
    """
    digest = {"method_digest": config["method_digest"]} if "method_digest" in config else {}  # as in version 0.1
    return known_facts({**digest, **config["run"]})


def begun_by_version_0_1(facts: Mapping[str, Any]) -> bool:
    """Whether a run's configuration was written by version 0.1, which noted only options that were changed.

    Such a run can be read when it is finished. It cannot be continued: the methods are at another version.
    """
    return "resolved_options" not in facts


def parse_config(text: str) -> dict[str, Any]:
    """The settings in the text of a configuration as a run folder or a checkpoint has it; nothing is imported.

    Raises:
        SyntaxError, ValueError: the text has more than assignments of literals.
    """
    found: dict[str, Any] = {}
    try:
        statements = ast.parse(text).body
    except (RecursionError, MemoryError) as error:  # of the parser: nested too deep
        raise ValueError(f"nested too deep ({error})") from None
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                except (TypeError, RecursionError, MemoryError) as error:  # a list as a key, say
                    raise ValueError(f"line {statement.lineno}: {error}") from None
            case _:
                raise ValueError(f"line {statement.lineno} is not a setting")
    return found
