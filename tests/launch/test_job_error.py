"""The results of jobs are read as text: a pickle that would execute something is not."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import cloudpickle_dump

from cissod_bench.launch.slurm import job_error

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1\ncissod_bench.errors.UserError: no space left\n'


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (("error", TRACEBACK), "cissod_bench.errors.UserError: no space left"),
        (("success", None), "it ended without a result"),
        (("error", 5), "it ended without a result"),
        (("error",), "cannot be read"),
        (5, "cannot be read"),
    ],
)
def test_the_error_is_that_of_the_traceback(tmp_path: Path, result: Any, said: str) -> None:
    cloudpickle_dump(result, tmp_path / "result.pkl")
    assert said in job_error(tmp_path / "result.pkl")


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: ("error", bad), lambda bad: ("success", [{"a": bad}])])
def test_a_payload_is_not_executed(tmp_path: Path, wrap: Any) -> None:
    marker, file = tmp_path / "marker", tmp_path / "result.pkl"
    file.write_bytes(pickle.dumps(wrap(Payload(marker))))
    assert "mkdir is not text" in job_error(file)
    assert not marker.exists()
    pickle.loads(file.read_bytes())
    assert marker.exists(), "the payload works"


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", b"\x80\x05K\x01", b"(" * 1000])
def test_a_damaged_result_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.pkl").write_bytes(content)
    assert "result.pkl cannot be read" in job_error(tmp_path / "result.pkl")
