"""Progressive distribution alignment of CReST+: pseudo labels follow the labelled classes, less and less."""

import torch
from mmengine.dist import all_reduce
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.ssod.generations import generation_of
from cissod_bench.ssod.refinement import Features


def alignment_exponent(generation: int, generations: int, least: float) -> float:
    """`t_g = 1 - (1 - t_min) * g / (G - 1)`: from 1 in the first generation to t_min in the last (CReST, eq. 3)."""
    return 1 - (1 - least) * generation / max(1, generations - 1)


class DistributionAlignment(nn.Module):
    """Progressive distribution alignment (CReST, sec. 3.4) of detections' classes; a `Refinement`.

    `p <- normalise(p * (q^t_g + 1e-6) / (m + 1e-6))` with q the labelled class distribution and m the mean of the last
    batches' mean p, which starts uniform.

    Args:
        num_classes: number of foreground classes n.
        channels: not needed.
        labeled_boxes: (n,) number of labelled boxes of each class; 0 counts as 1.
        generations, burn_in, iterations: see `generation_of`.
        least: t_min.
        window: batches in the mean.

    Attributes:
        recent: (window, n) mean p of the last batches with detections, over all ranks.
        taken: () number of batches so far.
    """

    labeled: Tensor
    recent: Tensor
    taken: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        labeled_boxes: tuple[int, ...],
        generations: int,
        burn_in: int,
        iterations: int,
        least: float = 0.5,
        window: int = 128,
    ) -> None:
        super().__init__()
        self.generations, self.burn_in, self.iterations, self.least = generations, burn_in, iterations, least
        counts = torch.tensor(labeled_boxes).clamp(min=1).float()
        self.register_buffer("labeled", counts / counts.sum(), persistent=False)
        self.register_buffer("recent", torch.full((window, num_classes), 1 / num_classes))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))

    def observe(self, teacher: object, inputs: Tensor, labels: list[InstanceData]) -> None:
        """Labelled images say nothing here."""

    @torch.no_grad()
    def refine(self, teacher: object, features: Features, pseudo: list[InstanceData], iteration: int) -> None:
        """Align the pseudo labels with the mean before this batch, then take the batch into it."""
        generation = generation_of(iteration, self.burn_in, self.iterations, self.generations)
        target = self.labeled ** alignment_exponent(generation, self.generations, self.least)
        ratio = (target + 1e-6) / (self.recent.mean(dim=0) + 1e-6)
        total = torch.zeros(len(ratio) + 1, dtype=torch.float32, device=ratio.device)
        for found in pseudo:
            if len(found):
                objectness = 1 - found.class_scores[:, -1:].float()
                linear = found.class_scores[:, :-1].float() / objectness.clamp(min=1e-12)
                total += torch.cat([linear.sum(dim=0), linear.new_tensor([len(found)])])
                aligned = linear * ratio
                best = (aligned / aligned.sum(dim=1, keepdim=True).clamp(min=1e-12)).max(dim=1)
                found.labels, found.scores = best.indices, best.values * objectness[:, 0]
        all_reduce(total)
        new, row = total[-1] > 0, self.taken % len(self.recent)
        mean = total[:-1] / total[-1].clamp(min=1)
        self.recent[row] = torch.where(new, mean, self.recent[row])
        self.taken += new

    def loss(
        self, student: object, features: Features, pseudo: list[InstanceData], iteration: int
    ) -> dict[str, Tensor]:
        """No loss of its own."""
        return {}
