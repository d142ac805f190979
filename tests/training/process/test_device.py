"""Device and threads of a run."""

import os
from pathlib import Path

import pytest

from cissod_bench.errors import UserError
from cissod_bench.training.process.device import default_threads, pick_device, usable_cores


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UserError, match=r"Unknown device 'gpu'. Did you mean 'cpu'\?"):
        pick_device("gpu")


@pytest.fixture
def twelve_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cissod_bench.training.process.device.usable_cores", lambda: 12)


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("2,1", 2), ("many", 12), ("0", 12), ("", 12)])
def test_threads_come_from_openmp_or_the_cores(
    given: str, expected: int, twelve_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads("cpu") == expected


def test_processes_share_the_cores_and_the_host_of_a_gpu_has_one_thread(
    twelve_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert default_threads("cpu", processes=5) == 2
    assert default_threads("cpu", processes=13) == 1
    assert default_threads("cuda") == 1


def test_a_control_group_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    limits = tmp_path / "cpu.max"
    assert usable_cores(limits) == 8, "no control group"
    for text, cores in (("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1), ("1600000 100000", 8)):
        limits.write_text(text)
        assert usable_cores(limits) == cores, text
