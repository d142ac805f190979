"""my-method: what the idea is, and which paper it comes from.

Written by `cissod-bench create method`. As it stands it is Soft Teacher with a cross entropy that counts the samples
of each class. Put your idea in; what `configure` does not set stays Soft Teacher's.

    cissod-bench run --task shapes --split SPLIT --method THIS_FILE --schedule short -o power=0.5
"""

import msgspec
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.methods.base import Context, Method, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.ssod.component import component

METHOD = Method(
    name="my-method",  # in tables and in the names of run folders
    family="own",
    title="what it does, in one line",
    citation="author, title, venue, year",
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `-o NAME=VALUE` sets; every option has a default. Values that differ from it go into the record."""

    power: float = 0.5
    """Classes are weighed by their count to the power of minus this; 0 is plain cross entropy."""


def configure(context: Context, options: Options) -> MethodConfig:
    """What the method puts into the framework.

    `context` holds what a method may know of the run: the number of classes and iterations, the labelled boxes of each
    class, the task's thresholds and more (`cissod_bench/methods/base.py`).
    """
    return MethodConfig(
        # The RoI classification loss: a class of this file, or one of mmdet's, such as {"type": "FocalLoss"}.
        loss_cls=component(MyMethodLoss, num_classes=context.num_classes, power=options.power),
        # Changes to the configuration of mmdet's Shared2FCBBoxHead, such as component(MyMethodHead).
        bbox_head={},
        # Changes anywhere else in the detector's configuration, nested like it: {"train_cfg": {"rcnn": {...}}}.
        detector={},
        # Which pseudo labels count: one threshold here; a class of your own with `update` and `thresholds` as in
        # cissod_bench/ssod/thresholds.py; or one of those there.
        threshold=fixed_threshold(context, None),
        # Changes pseudo labels before the threshold, and may add a loss: cissod_bench/ssod/refinement.py.
        refinement=None,
        # Repeat factor sampling of labelled images with the task's threshold; None samples them uniformly.
        labeled_repeat=repeat_threshold(context, None),
        # mmengine hooks around the iterations: [component(MyMethodHook)]. They reach the teacher and the student by
        # `model_of` (ssod/hooks/iteration.py) and the sampler by `runner.train_dataloader.sampler`.
        hooks=[],
    )


class MyMethodLoss(nn.Module):
    """Cross entropy weighed by class counts.

    Args:
        num_classes: number of foreground classes n; label n is the background.
        power: strength of the weights.
    """

    counts: Tensor
    pending: Tensor

    def __init__(self, num_classes: int, power: float) -> None:
        super().__init__()
        self.power = power
        # The branch of this call: "sup" (labelled), "unsup" (pseudo-labelled) or "off" (neither).
        self.branch = "off"
        # State is in buffers, so that an interrupted run resumes exactly.
        self.register_buffer("counts", torch.ones(num_classes + 1))
        self.register_buffer("pending", torch.zeros(num_classes + 1), persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of (R, n + 1) logits.

        Args:
            cls_score: logits, background last.
            labels: (R,) int64 targets.
            label_weights: (R,) weights; on pseudo-labelled images the teacher's background score for background RoIs.
            avg_factor: what the sum is divided by.
            reduction_override: as in mmdet's losses.
        """
        logits = cls_score.float()
        if self.branch != "off":
            self.pending.index_add_(0, labels, torch.ones_like(logits[:, 0]))
        weights = self.counts.clamp(min=1) ** -self.power
        losses = functional.cross_entropy(logits, labels, weights / weights.mean(), reduction="none")
        loss: Tensor = weight_reduce_loss(losses, label_weights, reduction_override or "mean", avg_factor)
        return loss

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> None:
        """Called once per iteration after both branches, on all ranks in step; optional."""
        all_reduce(self.pending)
        self.counts += self.pending
        self.pending.zero_()

    def diagnostics(self) -> dict[str, Tensor]:
        """Values by class to log, by name; optional."""
        return {"counts": self.counts}
