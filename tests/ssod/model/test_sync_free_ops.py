"""mmdet's parts in versions that do not wait, against mmdet's own."""

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_project
from torch import Tensor

from cissod_bench.ssod.model.box_coder import SyncFreeBoxCoder
from cissod_bench.ssod.model.roi_extractor import SortedRoIExtractor
from cissod_bench.ssod.model.roi_head import BatchedRoIHead
from cissod_bench.ssod.model.rpn_head import BatchedRPNHead
from cissod_bench.ssod.model.views import chosen, project
from tests.ssod.models import teacher_student

SingleRoIExtractor = MODELS.get("SingleRoIExtractor")
DeltaXYWHBBoxCoder = TASK_UTILS.get("DeltaXYWHBBoxCoder")


def boxes(count: int, seed: int, size: float = 128.0) -> Tensor:
    """Boxes of all sizes, some of them partly outside."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size * 1.1 - 0.05 * size
    side = size * torch.rand(count, 2, generator=generator) ** 3 + 0.1
    return torch.cat([corner, corner + side], dim=1)


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
@pytest.mark.parametrize("shape", [None, (100, 120)])
def test_the_coder_is_mmdets_to_the_bit(stds: tuple[float, ...], shape: tuple[int, int] | None) -> None:
    means = (0.0, 0.1, -0.2, 0.0)
    stock, lean = DeltaXYWHBBoxCoder(means, stds), SyncFreeBoxCoder(means, stds)
    one, other = boxes(300, 0), boxes(300, 1)
    assert torch.equal(lean.encode(one, other), stock.encode(one, other))
    deltas = torch.randn(300, 3 * 4, generator=torch.Generator().manual_seed(2)) * 4
    assert torch.equal(lean.decode(one, deltas, shape), stock.decode(one, deltas, shape))
    assert lean.decode(one[:0], deltas[:0]).shape == (0, 12)


@pytest.mark.parametrize("samples", [0, 1, 2])
def test_the_extractor_pools_what_mmdets_does(samples: int) -> None:
    """Without a fixed number of samples to the bit; the sums of rows to the rounding of four products."""
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": samples, "use_torchvision": True}
    options = {"out_channels": 5, "featmap_strides": [4, 8, 16], "finest_scale": 28}
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 32 // 2**level, 40 // 2**level) for level in range(3)]
    rois = torch.cat([torch.randint(2, (200, 1)).float(), boxes(200, 5, size=150.0)], dim=1)
    rois[:3, 3] = rois[:3, 1] - 5.0  # jitter can turn a small box inside out
    rois[2:5, 4] = rois[2:5, 2] - 5.0
    weight = torch.randn(200, 5, 7, 7)
    results = []
    for kind in (SingleRoIExtractor, SortedRoIExtractor):
        features = [level.clone().requires_grad_() for level in maps]
        pooled = kind(layer, **options)(features, rois)
        (pooled * weight).sum().backward()
        results.append([pooled, *(level.grad for level in features)])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    if samples == 0:
        assert torch.equal(results[1][0], results[0][0])
    assert SortedRoIExtractor(layer, **options)(maps, rois[:0]).shape == (0, 5, 7, 7)


def test_boxes_that_are_not_finite_have_no_features() -> None:
    """A run that explodes is to stop on its loss, not inside of the pooling."""
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 1, "use_torchvision": True}
    extractor = SortedRoIExtractor(layer, out_channels=2, featmap_strides=[4, 8], finest_scale=28)
    maps = [torch.randn(1, 2, 8 // 2**level, 8 // 2**level) for level in range(2)]
    rois = torch.tensor([[0.0, 1.0, 1.0, 9.0, 9.0]]).repeat(4, 1)
    rois[1, 1:], rois[2, 3:], rois[3, 2] = float("nan"), float("inf"), float("-inf")
    pooled = extractor(maps, rois)
    assert pooled[0].abs().sum() > 0
    assert pooled[1:].abs().sum() == 0


def test_pooling_is_the_same_with_any_number_of_threads() -> None:
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 1, "use_torchvision": True}
    extractor = SortedRoIExtractor(layer, out_channels=8, featmap_strides=[4, 8], finest_scale=28)
    maps = [torch.randn(1, 8, 32 // 2**level, 32 // 2**level) for level in range(2)]
    rois = torch.cat([torch.zeros(300, 1), boxes(300, 6)], dim=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            features = [level.clone().requires_grad_() for level in maps]
            pooled = extractor(features, rois)
            pooled.square().sum().backward()
            found.append([pooled, *(level.grad for level in features)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_boxes_of_a_batch_are_projected_as_mmdet_projects_each() -> None:
    torch.manual_seed(0)
    matrices = torch.eye(3) + 0.1 * torch.randn(3, 3, 3) * torch.tensor([[1, 1, 40], [1, 1, 40], [1e-3, 1e-3, 0.0]])
    shapes, counts = [(90, 120), (128, 128), (64, 60)], [4, 0, 9]
    found = boxes(13, 7)
    actual = project(found, counts, matrices, shapes)
    each = zip(torch.split(found, counts), matrices, shapes, strict=True)
    expected = torch.cat([bbox_project(part, matrix, shape) for part, matrix, shape in each])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(project(found, counts, matrices, shapes), actual), "coordinates are in single precision"


def test_chosen_is_a_mask_by_image() -> None:
    masks = torch.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])
    indices, counts = chosen(masks, [2, 0, 3])
    assert [index.tolist() for index in indices] == [[0, 2, 3], [], [0, 1, 2, 3, 4]]
    assert counts == [[1, 0, 2], [0, 0, 0], [2, 0, 3]]


def test_both_detectors_have_parts_that_do_not_wait() -> None:
    model = teacher_student()
    for detector in (model.student, model.teacher):
        assert type(detector.rpn_head) is BatchedRPNHead
        assert type(detector.roi_head) is BatchedRoIHead
        assert type(detector.roi_head.bbox_roi_extractor) is SortedRoIExtractor
        assert type(detector.roi_head.bbox_head.bbox_coder) is type(detector.rpn_head.bbox_coder) is SyncFreeBoxCoder
