"""RoI features of a feature pyramid: mmdet's extractor with one wait for the device instead of one a level.

mmdet looks for the RoIs of each level, so that a GPU's host waits four times in each of the five passes of a step, and
rounds boxes to the precision of the features: in bf16 a corner at 1,300 px would move by up to 4 px. Here RoIs are
sorted by level, and boxes and pooling are in single precision.

On a CPU torchvision's RoIAlign takes one RoI after the other on one core. With a fixed number of sampling points a RoI
feature is a weighted sum of rows of the feature maps, an embedding bag, which PyTorch does for all levels at once, with
vector instructions, on all threads, and the same in every order of threads.
"""

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor
from torch.nn import functional


class SortedRoIExtractor(SingleRoIExtractor):
    """mmdet's `SingleRoIExtractor`, with the same arguments and values; sums on a CPU are in another order."""

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Pool RoIs, each from the level that fits its size.

        Args:
            feats: (B, C, H, W) maps, finest first.
            rois: (K, 5) number of the image and box in pixels.
            roi_scale_factor: factor by which boxes grow before they are pooled.

        Returns:
            (K, C, S, S) float32 features.
        """
        maps = pooling_layout(feats)
        rois = rois.float()
        levels = self.map_roi_levels(rois, len(maps))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        if len(rois) == 0:
            return maps[0].new_zeros(0, self.out_channels, *self.roi_layers[0].output_size)
        if rois.device.type == "cpu" and _has_fixed_samples(self.roi_layers[0]):
            return pooled_rows(maps, rois, levels, self.roi_layers)
        # A jittered box may be turned inside out on one axis: its area is negative, its scale and level are none.
        levels = torch.where(levels < 0, len(maps), levels)
        levels, order = levels.sort(stable=True)
        counts = (levels[:, None] == torch.arange(len(maps) + 1, device=levels.device)).sum(dim=0).tolist()
        parts = torch.split(rois[order], counts)
        by_level = zip(self.roi_layers, maps, parts[:-1], strict=True)
        pooled = [layer(level, part) for layer, level, part in by_level if len(part)]
        nothing = maps[0].new_zeros(counts[-1], self.out_channels, *self.roi_layers[0].output_size)
        together = torch.cat([*pooled, nothing])
        return torch.empty_like(together).index_copy(0, order, together)


def pooling_layout(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Feature maps as RoIs are pooled from them: float32 and, on a GPU, channels first, as RoIAlign needs them there.

    Maps that are so already stay what they are: who pools several times from the same maps converts them once.
    """
    return tuple(level.float() if level.device.type == "cpu" else level.float().contiguous() for level in features)


def _has_fixed_samples(layer: RoIAlign) -> bool:
    return bool(layer.sampling_ratio > 0 and layer.pool_mode == "avg" and layer.aligned)


def pooled_rows(maps: Sequence[Tensor], rois: Tensor, levels: Tensor, layers: list[RoIAlign]) -> Tensor:
    """RoIAlign (He et al., ICCV 2017) with a fixed number of sampling points, as sums of rows of the maps.

    Args:
        maps: (B, C, H, W) float32 maps of the levels.
        rois: (K, 5) number of the image and box in pixels.
        levels: (K,) int64 level of each RoI; features of RoIs with a negative one are zero.
        layers: for each level its RoIAlign, all with one output size and number of sampling points.

    Returns:
        (K, C, S, S) features.
    """
    has_level, levels = levels >= 0, levels.clamp(min=0)
    rows = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, level.shape[1]) for level in maps])
    sizes = torch.tensor([[level.shape[2], level.shape[3]] for level in maps])
    cells = sizes.prod(dim=1)
    starts = (cells * len(maps[0])).cumsum(0) - cells * len(maps[0])
    first = starts[levels] + rois[:, 0].long() * cells[levels]  # row of the RoI's image on its level

    scales = torch.tensor([layer.spatial_scale for layer in layers])[levels]
    low, high = rois[:, [2, 1]] * scales[:, None] - 0.5, rois[:, [4, 3]] * scales[:, None] - 0.5  # y, x
    bins, samples = layers[0].output_size, layers[0].sampling_ratio
    places, weights = [], []
    for axis in (0, 1):
        size = sizes[levels, axis]
        step = (high[:, axis] - low[:, axis]) / bins[axis]
        offsets = (torch.arange(samples) + 0.5) * step[:, None, None] / samples
        points = low[:, axis, None, None] + torch.arange(bins[axis])[:, None] * step[:, None, None] + offsets
        place, weight = _neighbours(points, size[:, None, None])
        places.append(place.flatten(2))  # (K, S, samples x 2)
        weights.append(weight.flatten(2))
    width = sizes[levels, 1][:, None, None, None, None]
    index = places[0][:, :, None, :, None] * width + places[1][:, None, :, None, :] + first[:, None, None, None, None]
    weights[0] = weights[0] * has_level[:, None, None]
    weight = weights[0][:, :, None, :, None] * weights[1][:, None, :, None, :] / samples**2
    bags = functional.embedding_bag(
        index.reshape(-1, 4 * samples**2), rows, per_sample_weights=weight.reshape(-1, 4 * samples**2), mode="sum"
    )
    return bags.view(len(rois), *bins, -1).permute(0, 3, 1, 2)


def _neighbours(points: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (or columns) on both sides of (K, S, samples) points and their weights, each with a last axis of two.

    Points more than one cell outside count nothing; others outside are moved to the border.
    """
    inside = (points >= -1.0) & (points <= size)
    points = points.clamp(min=0.0)
    before = torch.minimum(points.floor().long().clamp(min=0), size - 1)  # what is not finite is nowhere
    after = torch.minimum(before + 1, size - 1)
    share = torch.where(before >= size - 1, 0.0, points - before)
    weight = torch.where(inside[..., None], torch.stack([1.0 - share, share], dim=-1), 0.0)
    return torch.stack([before, after], dim=-1), weight
