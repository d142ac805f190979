"""Whole runs of two processes, for every method of the registry: one model, one state, on both of them."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from cissod_bench.methods.registry import METHODS
from cissod_bench.ssod.hooks.iteration import model_of
from cissod_bench.training import runner as run
from tests.tiny import tiny_job

State = dict[str, torch.Tensor]


def _process(rank: int, tiny: str, folder: str) -> None:
    """One of two processes: all methods after each other, each with an iteration of either kind."""
    torch.set_num_threads(1)
    gc.freeze()  # as in conftest.py
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine reads it, whoever made the group
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    original = run.QuietRunner.train
    states: list[State] = []

    def train(self: Any) -> Any:
        outcome = original(self)
        states.append({name: value.clone() for name, value in model_of(self).state_dict().items()})
        return outcome

    run.QuietRunner.train = train
    for method in METHODS:
        job = tiny_job(Path(tiny), Path(folder) / method, method=method, iterations=2, gpus=2)
        try:
            run.run_job(job)
        except Exception as error:
            raise RuntimeError(f"{method}, process {rank}: {error}") from error
        torch.save(states[-1], f"{folder}/{method}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_process, (str(tiny), str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_end_with_one_state(method: str, two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"{method}-{rank}.pt") for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"{name} differs between the processes"
    saved = torch.load(two_processes / method / "checkpoints" / "iter_2.pth", weights_only=False)["state_dict"]
    assert all(torch.equal(value, first[name]) for name, value in saved.items())
    assert (two_processes / method / "result.json").exists()
