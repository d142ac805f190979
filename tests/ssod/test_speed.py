"""Mixed precision, compilation and late reading of losses in a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub
from torch._dynamo.testing import CompileCounterWithBackend

from cissod_bench.errors import UserError
from cissod_bench.results.run_key import comparison_key
from cissod_bench.ssod.hooks.compiled import check_compiler, compile_features
from cissod_bench.ssod.hooks.progress import ThroughputHook
from cissod_bench.ssod.hooks.scalars import ScalarsHook
from cissod_bench.ssod.model.layout import lay_out
from cissod_bench.ssod.precision import MixedPrecisionOptimWrapper, Precision, check_precision, products_in
from cissod_bench.training.build_config import build_config
from cissod_bench.training.runner import run_job
from tests.ssod.models import batch, teacher_student, train_steps
from tests.tiny import tiny_job


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_mixed_precision_is_recorded_as_such(precision: str, tiny: Path, tmp_path: Path) -> None:
    result = run_job(tiny_job(tiny, tmp_path / "run", precision=precision, iterations=3))
    plain = run_job(tiny_job(tiny, tmp_path / "plain", iterations=3))
    assert (result.key.precision, plain.key.precision) == (precision, "tf32")
    assert comparison_key(result.key) != comparison_key(plain.key)
    state = torch.load(tmp_path / "run" / "checkpoints" / "iter_3.pth", weights_only=False)
    assert all(value.dtype != torch.bfloat16 for value in state["state_dict"].values())
    assert bool(state["optimizer"]["loss_scale"]) == (precision == "fp16")
    assert torch.load(tmp_path / "plain" / "checkpoints" / "iter_3.pth", weights_only=False)["optimizer"]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_tf32_is_on_for_a_run_that_asks_for_it_and_as_before_afterwards(precision: Precision) -> None:
    switches: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    with products_in(precision):
        assert [switch.allow_tf32 for switch in switches] == [precision == "tf32"] * 2
    assert [switch.allow_tf32 for switch in switches] == before


def test_memory_is_the_most_of_all_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's logger resets PyTorch's peak with each line."""
    peaks = iter([300.0, 700.0, 200.0, 100.0])
    monkeypatch.setattr("cissod_bench.ssod.hooks.progress.peak_memory", lambda: next(peaks))
    hub = MessageHub.get_instance("memory")
    runner = SimpleNamespace(message_hub=hub, iter=0, peak_memory_mib=None)
    hook = ThroughputHook(interval=1, batch=2)
    hook.before_train(runner)
    for runner.iter in range(3):
        hook.after_train_iter(runner, runner.iter)
    assert hub.get_scalar("train/memory_mib").data[0].tolist() == [300.0, 700.0, 700.0]
    assert callable(runner.peak_memory_mib)
    assert runner.peak_memory_mib() == 700.0


def test_the_loss_scale_falls_on_overflow_and_its_state_goes_on() -> None:
    def wrapper(weight: torch.Tensor) -> MixedPrecisionOptimWrapper:
        return MixedPrecisionOptimWrapper(
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
        check_precision("bf61", "cpu")


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


@pytest.mark.slow
def test_compiled_features_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler's front end alone: graphs are cut and differentiated as for code, which needs a minute."""
    plain, compiled = teacher_student(), teacher_student()
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


def test_compiled_code_serves_images_of_any_size() -> None:
    """A few pieces of code for a dozen shapes; without the sizes as variables there would be one for each."""
    model = teacher_student()
    counter = CompileCounterWithBackend("eager")
    compile_features(model, backend=counter)
    with torch.no_grad():
        for step in range(12):
            model.teacher.extract_feat(torch.randn(1, 3, 64 + 32 * (step % 4), 96 + 32 * (step // 4)))
    assert counter.frame_count <= 6


def test_the_padding_is_the_presets_and_stands_in_the_record(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run")
    assert job.key.padding == job.detector.padding == 32
    for preset, padding in (("r50-fpn", 128), ("r18-medium", 32)):
        config = build_config(tiny_job(tiny, tmp_path / "other", detector=preset))
        assert config.model.detector.data_preprocessor.pad_size_divisor == padding
        assert config.model.data_preprocessor.data_preprocessor.pad_size_divisor == padding


def test_weights_lie_with_channels_last_on_a_cpu() -> None:
    model = teacher_student().to(memory_format=torch.contiguous_format)
    assert lay_out(model, "fp32").student.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
