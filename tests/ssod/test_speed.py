"""Mixed precision, compilation and late reading of losses in a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub

from cissod_bench.errors import UserError
from cissod_bench.results.run_key import comparison_key
from cissod_bench.ssod.hooks.compiled import PADDING, check_compiler, compile_features
from cissod_bench.ssod.hooks.scalars import ScalarsHook
from cissod_bench.ssod.precision import FrameOptimWrapper, check_amp
from cissod_bench.training.build_config import build_config
from cissod_bench.training.runner import run_job
from tests.ssod.frames import batch, frame, train_steps
from tests.tiny import tiny_job


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_run_in_mixed_precision_is_recorded_as_such(amp: str, tiny: Path, tmp_path: Path) -> None:
    result = run_job(tiny_job(tiny, tmp_path / "run", amp=amp, iterations=3))
    plain = run_job(tiny_job(tiny, tmp_path / "plain", iterations=3))
    assert (result.key.amp, plain.key.amp) == (amp, None)
    assert comparison_key(result.key) != comparison_key(plain.key)
    state = torch.load(tmp_path / "run" / "checkpoints" / "iter_3.pth", weights_only=False)
    assert all(value.dtype != torch.bfloat16 for value in state["state_dict"].values())
    assert bool(state["optimizer"]["loss_scale"]) == (amp == "fp16")
    assert torch.load(tmp_path / "plain" / "checkpoints" / "iter_3.pth", weights_only=False)["optimizer"]


def test_the_loss_scale_falls_on_overflow_and_its_state_goes_on() -> None:
    def wrapper(weight: torch.Tensor) -> FrameOptimWrapper:
        return FrameOptimWrapper(
            "fp16", "cpu", optimizer=torch.optim.SGD([weight], lr=0.1), clip_grad={"max_norm": 1.0}
        )

    weight = torch.nn.Parameter(torch.ones(2))
    first = wrapper(weight)
    first.update_params((weight * 2.0).sum())
    assert first.grad_norm is not None
    assert float(first.grad_norm) == pytest.approx(8**0.5), "norm of the gradients without the scale"
    kept = weight.detach().clone()
    first.update_params((weight * float("inf")).sum())
    assert torch.equal(weight, kept), "a step that overflows is left out"
    second = wrapper(weight)
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["loss_scale"] == first.state_dict()["loss_scale"]
    assert second.state_dict()["loss_scale"]["scale"] == 2.0**15


def test_wrong_precisions_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown precision 'bf61'. Did you mean 'bf16'\?"):
        check_amp("bf61", "cpu")


def test_losses_are_those_that_mmengine_reads_in_every_iteration() -> None:
    def run(hook: Any, name: str) -> dict[str, list[float]]:
        hub = MessageHub.get_instance(name)
        runner = SimpleNamespace(message_hub=hub, iter=0, max_iters=7, optim_wrapper=SimpleNamespace(grad_norm=None))
        for runner.iter in range(7):
            values = {"loss": torch.tensor(0.1 + runner.iter), "loss_cls": torch.tensor(1.0 / (1 + runner.iter))}
            hook.after_train_iter(runner, runner.iter, None, values)
            if runner.iter == 4:
                checkpoint: dict[str, Any] = {}
                hook.before_save_checkpoint(runner, checkpoint)
        return {name: buffer.data[0].tolist() for name, buffer in hub.log_scalars.items()}

    expected, actual = run(RuntimeInfoHook(), "in every iteration"), run(ScalarsHook(3), "late")
    assert actual == expected
    assert len(actual["train/loss"]) == 7


def test_compiled_features_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler's front end alone: graphs are cut and differentiated as for code, which needs a minute."""
    plain, compiled = frame(), frame()
    names = list(compiled.state_dict())
    compile_features(compiled, backend="aot_eager")
    assert list(compiled.state_dict()) == names
    for expected, actual in zip(train_steps(plain, 2), train_steps(compiled, 2), strict=True):
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)
    compiled.eval()
    compiled.predict(batch(0)[0]["sup"], batch(0)[1]["sup"])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working C++ compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        UserError, match=r"torch.compile does not work here \(no working C\+\+ compiler\). It needs a C"
    ):
        check_compiler("cpu")


def test_compilation_pads_to_buckets(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cissod_bench.training.job.check_compiler", lambda device: None)
    config = build_config(tiny_job(tiny, tmp_path / "run", compile=True))
    assert config.model.detector.data_preprocessor.pad_size_divisor == PADDING
    assert config.model.data_preprocessor.data_preprocessor.pad_size_divisor == PADDING
    assert any(hook.type.endswith(".CompileHook") for hook in config.custom_hooks)
