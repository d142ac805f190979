"""Non-maximum suppression of many lists, against torchvision's loop over each."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from cissod_bench.ssod.model.nms import fixed_point, greedy_nms


def crowded(lists: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes in heaps, so that long chains of them take each other away; some are not there."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(lists, 1 + count // 20, 2, generator=generator) * 100
    heap = torch.randint(centre.shape[1], (lists, count), generator=generator)
    corner = centre.gather(1, heap[..., None].expand(-1, -1, 2)) + torch.randn(lists, count, 2, generator=generator) * 4
    sides = 10 + 10 * torch.rand(lists, count, 2, generator=generator)
    return torch.cat([corner, corner + sides], dim=-1), torch.rand(lists, count, generator=generator) > 0.1


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [1, 7, 400])
def test_the_fixed_point_is_what_a_loop_keeps(count: int, threshold: float) -> None:
    boxes, usable = crowded(4, count, count)
    if count > 1:
        usable[1] = False
        boxes[2, : count // 2] = boxes[2, 0]  # equal boxes
        boxes[3, 1, 2:] = boxes[3, 1, :2]  # without any area
    expected = torch.zeros_like(usable)
    for row, (box, flags) in enumerate(zip(boxes, usable, strict=True)):
        places = flags.nonzero()[:, 0]
        expected[row, places[nms(box[places], -places.float(), threshold)]] = True
    assert torch.equal(fixed_point(boxes, usable, threshold), expected)
    assert torch.equal(greedy_nms(boxes, usable, threshold), expected)


def test_a_long_chain_needs_many_rounds_and_gets_them() -> None:
    """Each box overlaps the next one alone, so that every second remains."""
    left = torch.arange(300.0) * 4
    boxes = torch.stack([left, torch.zeros(300), left + 10, torch.full((300,), 10.0)], dim=1)[None]
    kept = fixed_point(boxes, torch.ones(1, 300, dtype=torch.bool), 0.4)
    assert kept[0].tolist() == [index % 2 == 0 for index in range(300)]
