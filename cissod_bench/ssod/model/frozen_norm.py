"""ResNet's convolutions with the frozen batch normalisation behind them folded into their weights.

In evaluation mode, with weights that do not learn, batch normalisation is an affine map of each channel: one more read
and write of every feature map forward, and two more backward, of an eighth of a step on a GPU. Here the map is part of
the convolution's weight and bias, and on a GPU in half precision or TF32 cuDNN adds the bias and the shortcut and cuts
off below zero while it writes the convolution's result.
"""

from typing import Any

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional


class _Convolve(torch.autograd.Function):
    """`relu(conv(x, weight * scale) + bias + shortcut)`, with gradients for x, weight and shortcut."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shortcut: Tensor | None,
        folded: Tensor,
        scale: Tensor,
        bias: Tensor,
        conv: Any,
        relu: bool,
    ) -> Tensor:
        """See the class; `folded` is weight * scale in the precision of the convolution."""
        where = (conv.stride, conv.padding, conv.dilation)
        result = _by_cudnn(x, folded, shortcut, bias, conv) if relu and fuses(x) else None
        if result is None:
            result = functional.conv2d(x, folded, bias, *where, conv.groups)
            if shortcut is not None:
                result = result.add_(shortcut)
            if relu:
                result = result.relu_()
        ctx.conv, ctx.relu, ctx.cut = conv, relu, shortcut is not None
        ctx.save_for_backward(x, folded, scale, result if relu else None)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and shortcut."""
        x, folded, scale, result = ctx.saved_tensors
        conv, (needs_x, needs_weight, needs_shortcut) = ctx.conv, ctx.needs_input_grad[:3]
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, result, 0)
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, folded, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
            [needs_x, needs_weight, False],
        )  # fmt: skip
        if needs_weight:
            of_weight = of_weight * scale[:, None, None, None]  # in the precision of the weights
        return of_x, of_weight, grad if needs_shortcut else None, None, None, None, None, None


def _by_cudnn(x: Tensor, folded: Tensor, shortcut: Tensor | None, bias: Tensor, conv: Any) -> Tensor | None:
    """All of it in one kernel; None where this version of cuDNN has none for this convolution."""
    if conv.__dict__.get("_has_no_kernel"):
        return None
    where = (conv.stride, conv.padding, conv.dilation, conv.groups)
    try:
        if shortcut is None:
            return torch.cudnn_convolution_relu(x, folded, bias, *where)
        return torch.cudnn_convolution_add_relu(x, folded, shortcut, 1.0, bias, *where)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        conv.__dict__["_has_no_kernel"] = True
        return None


def fuses(x: Tensor) -> bool:
    """Whether cuDNN can do all of it for this input: not in full single precision, where it has no such kernel."""
    return x.device.type == "cuda" and (x.dtype != torch.float32 or torch.backends.cudnn.allow_tf32)


def convolve(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, relu: bool, shortcut: Tensor | None = None) -> Tensor:
    """Convolution, frozen normalisation, shortcut and ReLU of (B, C, H, W) maps.

    Args:
        x: the maps.
        conv: a convolution without bias.
        norm: in evaluation mode, its weight and bias without gradients.
        relu: whether values below zero are cut off at the end.
        shortcut: what is added before that; it may be overwritten by nobody else.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    folded, scale, bias = _folded(conv, norm, dtype)
    shortcut = None if shortcut is None else shortcut.to(dtype)
    with torch.autocast(kind, enabled=False):
        result: Tensor = _Convolve.apply(x.to(dtype), conv.weight, shortcut, folded, scale, bias, conv, relu)
    return result


def _folded(conv: Any, norm: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Weight with the scale in it, scale and bias; made anew when one of the parameters has changed."""
    with torch.no_grad():
        sources = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        state = (norm.eps, *((each.data_ptr(), each._version) for each in sources))
        kept = norm.__dict__.get("_affine")
        if kept is None or kept[0] != state:
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            kept = norm.__dict__["_affine"] = (state, scale, norm.bias - norm.running_mean * scale, {})
        _, scale, bias, cast = kept
        if dtype not in cast:
            cast[dtype] = bias.to(dtype)
        state = (dtype, conv.weight.data_ptr(), conv.weight._version, scale.data_ptr())
        folded = conv.__dict__.get("_with_norm")
        if folded is None or folded[0] != state:
            weight = torch.empty_like(conv.weight, dtype=dtype)
            torch.mul(conv.weight, scale[:, None, None, None], out=weight)
            folded = conv.__dict__["_with_norm"] = (state, weight)
        return folded[1], scale, cast[dtype]


class FoldedBasicBlock(BasicBlock):
    """mmdet's block of two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) maps of the next block."""
        shortcut = x if self.downsample is None else convolve(x, self.downsample[0], self.downsample[1], False)
        out = convolve(x, self.conv1, self.norm1, True)
        return convolve(out, self.conv2, self.norm2, True, shortcut)


class FoldedBottleneck(Bottleneck):
    """mmdet's block of three convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) maps of the next block."""
        shortcut = x if self.downsample is None else convolve(x, self.downsample[0], self.downsample[1], False)
        out = convolve(convolve(x, self.conv1, self.norm1, True), self.conv2, self.norm2, True)
        return convolve(out, self.conv3, self.norm3, True, shortcut)


class FoldedResNet(ResNet):
    """mmdet's ResNet; its blocks are folded ones."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps of the stages in `out_indices` of (B, 3, H, W) images."""
        x = self.maxpool(convolve(x, self.conv1, self.norm1, True))
        outs = []
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)


_BLOCKS = {BasicBlock: FoldedBasicBlock, Bottleneck: FoldedBottleneck}


def fold_frozen_norms(backbone: Any) -> None:
    """Fold the normalisations of a ResNet; one with any that learns, or with parts that ours lack, stays as it is."""
    if type(backbone) is not ResNet or backbone.deep_stem or not backbone.norm_eval or backbone.with_cp:
        return
    blocks = [block for name in backbone.res_layers for block in getattr(backbone, name)]
    norms = [part for part in backbone.modules() if isinstance(part, nn.modules.batchnorm._NormBase | nn.GroupNorm)]
    if any(type(norm) is not nn.BatchNorm2d or norm.weight.requires_grad for norm in norms):
        return
    if any(type(block) not in _BLOCKS or not _plain(block) for block in blocks):
        return
    backbone.__class__ = FoldedResNet
    for block in blocks:
        block.__class__ = _BLOCKS[type(block)]


def unfold_frozen_norms(backbone: Any) -> None:
    """Take back what `fold_frozen_norms` did."""
    if type(backbone) is FoldedResNet:
        backbone.__class__ = ResNet
        for name in backbone.res_layers:
            for block in getattr(backbone, name):
                block.__class__ = next(theirs for theirs, ours in _BLOCKS.items() if type(block) is ours)


def _plain(block: Any) -> bool:
    """Whether a block has nothing but convolutions without bias and their normalisations."""
    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    shortcut = block.downsample is None or len(block.downsample) == 2
    plugins = getattr(block, "with_plugins", False) or getattr(block, "with_dcn", False)
    return shortcut and not plugins and all(type(each) is nn.Conv2d and each.bias is None for each in convolutions)
