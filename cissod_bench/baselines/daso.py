"""DASO (Oh et al., CVPR 2022) on Soft Teacher with RFS; row "DASO" of the paper's Tables 1-3.

Each class keeps the teacher's features of its last labelled boxes in a queue of equal length; the queue's mean is the
class's prototype. A pseudo label then has two opinions: the linear classifier's scores p, and the semantic scores
q = softmax(cos(z, prototypes) / 0.05) of its feature z. They are blended by p' = (1 - u_k) p + u_k q, where k is the
class that p predicts and u_k grows with how often class k has been predicted lately, so that frequent classes rely on
q. A semantic alignment loss asks the student for the teacher's q on its own view.

Our reading for detection, which no source describes:
* features are the outputs of the RoI head's shared layers, for boxes given as RoIs; queues hold ground-truth boxes;
* only foreground classes have prototypes: p' is over foreground, and the classifier keeps its word on objectness, so
  that the blended score is max p' times (1 - background score). The box stays that of the class first predicted;
* "unlabelled sample" is a pseudo label above Soft Teacher's initial 0.5; blending precedes its 0.9. There p's class is
  the detection's own, since a score above 0.5 is the largest of its RoI;
* classes without a labelled feature yet take no part in q (in the original a zero prototype takes some);
* the alignment loss has weight 1, as all terms of DASO have, and is not multiplied by lambda_u.
"""

from typing import Any

import msgspec
import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.dist import all_gather, all_reduce, get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.methods.base import Context, MethodConfig, fixed_threshold, repeat_threshold
from cissod_bench.methods.option_types import Count, NotNegative, Positive, UnitInterval
from cissod_bench.ssod.component import component
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead
from cissod_bench.ssod.refinement import Features

QUEUED = 76_800
"""Features in all queues together by default: 157 MB of half-precision numbers with 1,024 channels."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of DASO."""

    queue: Count | None = None
    """Features kept for each class; by default 256 as in DASO, fewer where there are more than 300 classes."""
    temperature: Positive = 0.05
    """Temperature T_proto of the semantic scores (DASO: 0.05)."""
    distribution_temperature: Positive = 0.3
    """Temperature T_dist of the blend: the original's value for unlabelled data of another distribution (1.5: same)."""
    window: Count = 100
    """Iterations whose pseudo labels make one estimate of the class distribution (DASO: 100)."""
    warmup: UnitInterval = 0.02
    """Part of the run before labels are blended and features aligned (original: 5,000 of 250,000); not counted from
    the end of a burn-in."""
    alignment: NotNegative = 1.0
    """Weight of the semantic alignment loss (DASO: 1)."""
    theta: UnitInterval | None = None
    """Threshold of pseudo labels for the RoI classifier; the detector preset's by default (paper: 0.9)."""
    threshold: NotNegative | None = None
    """Oversampling threshold t of RFS on labelled images; the task's by default."""


def configure(context: Context, options: Options) -> MethodConfig:
    """Blended pseudo labels and semantic alignment, RFS."""
    return MethodConfig(
        bbox_head=component(ClassScoresBBoxHead),
        threshold=fixed_threshold(context, options.theta),
        refinement=component(
            SemanticBlend,
            queue=options.queue or min(256, max(1, QUEUED // context.num_classes)),
            temperature=options.temperature,
            distribution_temperature=options.distribution_temperature,
            window=options.window,
            warmup=round(options.warmup * context.iterations),
            alignment=options.alignment,
        ),
        labeled_repeat=repeat_threshold(context, options.threshold),
    )


def embed(roi_head: Any, features: Features, boxes: list[Tensor]) -> Tensor:
    """(sum of K, F) float32 outputs of the RoI head's shared layers for each image's (K, 4) boxes."""
    extractor, head = roi_head.bbox_roi_extractor, roi_head.bbox_head
    hidden: Tensor = extractor(features[: extractor.num_inputs], bbox2roi(boxes))
    for layer in head.shared_convs:
        hidden = layer(hidden)
    if head.with_avg_pool:
        hidden = head.avg_pool(hidden)
    hidden = hidden.flatten(1)
    for layer in head.shared_fcs:
        hidden = layer(hidden).relu()
    return hidden.float()


def blend(scores: Tensor, semantic: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and scores of blended pseudo labels.

    Args:
        scores: (K, n + 1) scores p of the classifier, background last.
        semantic: (K, n) semantic scores q over foreground classes.
        weights: (n,) u_k.

    Returns:
        (K,) int64 labels and (K,) scores, the largest p' times the foreground score.
    """
    foreground = (1 - scores[:, -1:]).clamp(min=1e-12)
    linear = scores[:, :-1] / foreground
    weight = weights[linear.argmax(dim=1)][:, None]
    best = ((1 - weight) * linear + weight * semantic).max(dim=1)
    return best.indices, best.values * foreground[:, 0]


def blend_weights(counts: Tensor, temperature: float) -> Tensor:
    """(n,) u_k from (n,) numbers of pseudo labels: m^(1 / T) over its maximum, 0 everywhere without pseudo labels."""
    relative = counts / counts.max().clamp(min=1.0)
    return relative ** (1 / temperature)


class SemanticBlend(nn.Module):
    """Balanced feature queues, blended pseudo labels and semantic alignment; a `Refinement`.

    Args:
        num_classes: number of foreground classes n.
        channels: width F of the features.
        queue: features L kept for each class.
        temperature: T_proto.
        distribution_temperature: T_dist.
        window: iterations in one estimate of the class distribution.
        warmup: iterations without blending and alignment.
        alignment: weight of the alignment loss.

    Attributes:
        features: (n, L, F) float16 rings; zero where nothing is yet.
        queued: (n,) number of features that each ring has taken.
        counts: (n,) pseudo labels of each class in the current window, over all ranks.
        weights: (n,) u_k from the window before; 0 until there is one.
    """

    features: Tensor
    queued: Tensor
    counts: Tensor
    weights: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        queue: int = 256,
        temperature: float = 0.05,
        distribution_temperature: float = 0.3,
        window: int = 100,
        warmup: int = 0,
        alignment: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.queue = num_classes, queue
        self.temperature, self.distribution_temperature = temperature, distribution_temperature
        self.window, self.warmup, self.alignment = window, warmup, alignment
        self.register_buffer("features", torch.zeros(num_classes, queue, channels, dtype=torch.float16))
        self.register_buffer("queued", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("weights", torch.zeros(num_classes))

    @torch.no_grad()
    def observe(self, teacher: Any, inputs: Tensor, labels: list[InstanceData]) -> None:
        """Queue the teacher's features of the ground-truth boxes of (B, 3, H, W) labelled images."""
        features = embed(teacher.roi_head, teacher.extract_feat(inputs), [found.bboxes for found in labels])
        self.enqueue(_of_all_ranks(features), _of_all_ranks(torch.cat([found.labels for found in labels])))

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor) -> None:
        """Put (M, F) features with (M,) labels into the rings, in their order; the last of each class stay."""
        member = functional.one_hot(labels, self.num_classes)
        order = (member.cumsum(0) - member).gather(1, labels[:, None]).squeeze(1)  # earlier ones of the same class
        total = member.sum(0)
        kept = (order >= total[labels] - self.queue).nonzero()[:, 0]
        slots = (self.queued[labels] + order) % self.queue
        self.features[labels[kept], slots[kept]] = features[kept].to(self.features.dtype)
        self.queued += total

    def similarities(self, features: Tensor) -> Tensor:
        """(K, n) cosines of (K, F) features with the prototypes over T_proto; classes without one are far below."""
        filled = self.queued.clamp(max=self.queue)
        # The directions of a sum and of a mean are the same; unused slots hold zeros.
        prototypes = functional.normalize(self.features.sum(dim=1, dtype=torch.float32), dim=1)
        with torch.autocast(features.device.type, enabled=False):
            cosines = functional.linear(functional.normalize(features.float(), dim=1), prototypes)
        return (cosines / self.temperature).masked_fill(filled == 0, -1e9)

    @torch.no_grad()
    def refine(self, teacher: Any, features: Features, pseudo: list[InstanceData], iteration: int) -> None:
        """Blend the pseudo labels, and note q in `semantic` for the alignment loss."""
        embedded = embed(teacher.roi_head, features, [found.bboxes for found in pseudo])
        semantic = self.similarities(embedded).softmax(dim=1)
        usable = (self.queued > 0).any() if iteration >= self.warmup else torch.zeros_like(self.queued[0])
        sizes = [len(found) for found in pseudo]
        for found, scores in zip(pseudo, torch.split(semantic, sizes), strict=True):
            if len(found):
                found.labels, found.scores = blend(found.class_scores, scores, self.weights * usable)
            found.semantic = scores
        self.note(torch.cat([found.labels for found in pseudo]), iteration)

    @torch.no_grad()
    def note(self, labels: Tensor, iteration: int) -> None:
        """Count (K,) final labels of an iteration; at the end of a window, turn the counts into weights."""
        counts = torch.zeros_like(self.counts).index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))
        all_reduce(counts)
        self.counts += counts
        if (iteration + 1) % self.window == 0:
            found = self.counts.any()  # a window without pseudo labels says nothing
            new = blend_weights(self.counts, self.distribution_temperature)
            self.weights.copy_(torch.where(found, new, self.weights))
            self.counts.zero_()

    def loss(self, student: Any, features: Features, pseudo: list[InstanceData], iteration: int) -> dict[str, Tensor]:
        """Cross entropy of the student's semantic scores against the teacher's, mean over pseudo labels."""
        if iteration < self.warmup or sum(len(found) for found in pseudo) == 0:
            return {"loss_alignment": features[0].new_zeros(())}
        embedded = embed(student.roi_head, features, [found.bboxes for found in pseudo])
        targets = torch.cat([found.semantic for found in pseudo])
        loss = -(targets * self.similarities(embedded).log_softmax(dim=1)).sum(dim=1).mean()
        return {"loss_alignment": self.alignment * loss * (self.queued > 0).any()}


def _of_all_ranks(rows: Tensor) -> Tensor:
    """Rows of all ranks one after the other, though each may have another number of them."""
    if get_world_size() == 1:
        return rows
    sizes = [int(size) for size in all_gather(torch.tensor(len(rows), device=rows.device))]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:size] for part, size in zip(all_gather(padded), sizes, strict=True)])
