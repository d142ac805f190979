"""A ResNet with its frozen normalisations folded in, against mmdet's."""

import copy

import pytest
import torch
from mmdet.models.backbones import ResNet
from torch import nn

from cissod_bench.ssod.model.frozen_norm import FoldedResNet, fold_frozen_norms


def pair(depth: int, **changes: object) -> tuple[nn.Module, nn.Module]:
    options = {"norm_cfg": {"type": "BN", "requires_grad": False}, "norm_eval": True, "frozen_stages": 1}
    torch.manual_seed(0)
    theirs = ResNet(depth, base_channels=8, **{**options, **changes})
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.running_var):
                values.uniform_(0.5, 1.5)
            for values in (part.bias.data, part.running_mean):
                values.normal_(std=0.3)
    mine = copy.deepcopy(theirs)
    fold_frozen_norms(mine)
    theirs.train()
    mine.train()
    return theirs, mine


@pytest.mark.parametrize(("depth", "style"), [(18, "pytorch"), (50, "pytorch"), (50, "caffe")])
def test_features_and_gradients_are_mmdets(depth: int, style: str) -> None:
    theirs, mine = pair(depth, style=style)
    assert type(mine) is FoldedResNet
    assert list(mine.state_dict()) == list(theirs.state_dict())
    optimizers = [
        torch.optim.SGD([p for p in each.parameters() if p.requires_grad], lr=0.01) for each in (theirs, mine)
    ]
    for step in range(2):  # the second one with other weights
        images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((theirs, mine), optimizers, strict=True):
            optimizer.zero_grad()
            maps = model(images)
            sum((level * (1 + index)).square().mean() for index, level in enumerate(maps)).backward()
            optimizer.step()
        expected, actual = theirs(images), mine(images)
        for one, other in zip(expected, actual, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
        for (name, one), other in zip(theirs.named_parameters(), mine.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), name
            if one.grad is not None:
                torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_new_statistics_are_seen() -> None:
    theirs, mine = pair(18)
    images = torch.randn(1, 3, 64, 64)
    before = mine(images)[0]
    for model in (theirs, mine):
        model.load_state_dict({name: value + 0.1 * value.abs() for name, value in model.state_dict().items()
                               if "num_batches" not in name}, strict=False)  # fmt: skip
    after = mine(images)[0]
    torch.testing.assert_close(after, theirs(images)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after)


def test_autocast_reaches_the_convolutions_alone() -> None:
    theirs, mine = pair(50)
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        actual = mine(images)
    assert actual[0].dtype == torch.bfloat16
    sum(level.float().sum() for level in actual).backward()
    assert all(p.grad.dtype == torch.float32 for p in mine.parameters() if p.grad is not None)
    for one, other in zip(theirs(images), actual, strict=True):
        assert float((other.float() - one).norm() / one.norm()) < 0.03


@pytest.mark.parametrize("changes", [
    {"norm_cfg": {"type": "BN", "requires_grad": True}}, {"norm_eval": False}, {"deep_stem": True},
    {"norm_cfg": {"type": "GN", "num_groups": 4, "requires_grad": True}},
])  # fmt: skip
def test_what_is_not_frozen_stays(changes: dict[str, object]) -> None:
    assert type(pair(18, **changes)[1]) is ResNet
