"""The stand-in for mmcv's compiled operators."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cissod_bench.ssod import mmcv_shim as operators


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        clear = True
        for other in kept:
            width = min(boxes[index, 2], boxes[other, 2]) - max(boxes[index, 0], boxes[other, 0]) + offset
            height = min(boxes[index, 3], boxes[other, 3]) - max(boxes[index, 1], boxes[other, 1]) + offset
            overlap = max(0.0, width) * max(0.0, height)
            areas = [np.prod(boxes[i, 2:] - boxes[i, :2] + offset) for i in (index, other)]
            clear &= overlap <= threshold * (areas[0] + areas[1] - overlap)
        if clear:
            kept.append(int(index))
    return kept


@given(seed=st.integers(0, 10_000), count=st.integers(0, 25), offset=st.sampled_from([0, 1]))
def test_nms_is_the_definition(seed: int, count: int, offset: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 30, (count, 2))
    boxes = np.concatenate([corners, corners + generator.integers(1, 20, (count, 2))], axis=1).astype(np.float64)
    scores = generator.permutation(count) / max(count, 1)
    kept = operators.nms(torch.tensor(boxes), torch.tensor(scores), 0.45, offset)
    assert kept.tolist() == naive_nms(boxes, scores, 0.45, offset)


def test_other_operators_say_what_is_missing() -> None:
    if operators.backend() == "mmcv":
        pytest.skip("compiled mmcv is installed")
    from mmcv.ops import RoIAlign, soft_nms

    with pytest.raises(operators.MissingOperatorError, match=r"softnms needs the compiled extension.*MMCV_WITH_OPS"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1))
    with pytest.raises(operators.MissingOperatorError, match="use_torchvision=True"):
        RoIAlign(7, use_torchvision=False)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 5))


def test_roi_align_through_torchvision_averages_a_plane_exactly() -> None:
    """Bilinear sampling of a linear function is exact, so the mean over a box is its value at the box's centre."""
    from mmcv.ops import RoIAlign

    plane = torch.arange(32.0)[None, None, None, :] + 3 * torch.arange(32.0)[None, None, :, None]
    box = torch.tensor([[0.0, 6, 8, 20, 18]])
    pooled = RoIAlign(1, sampling_ratio=2, use_torchvision=True)(plane, box)
    assert pooled.item() == pytest.approx((13 - 0.5) + 3 * (13 - 0.5), rel=1e-6)


def test_a_compiled_extension_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finder stands last: a real file `mmcv/_ext.py` on mmcv's path is found before it."""
    import mmcv

    (tmp_path / "_ext.py").write_text("def nms():\n    return 'compiled'\n")
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    importlib.invalidate_caches()
    assert operators.backend() == "mmcv"
    assert importlib.import_module("mmcv._ext").nms() == "compiled"
    monkeypatch.delitem(sys.modules, "mmcv._ext")


def test_installing_twice_changes_nothing() -> None:
    operators.install()
    before = list(sys.meta_path)
    operators.install()
    assert sys.meta_path == before
