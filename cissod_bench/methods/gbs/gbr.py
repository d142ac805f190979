"""Gradient-based reweighting (GbR), paper sec. 3.2: a focal loss with class weights that balance its own gradients.

Once per iteration the gradient matrices of both training branches enter a moving average, the weights take one step
towards the Jacobi targets of eq. (6), and the next iteration's losses use them: w on pseudo labels, w^beta on labelled
samples. The step is `a <- a + rho * (log w_target - a)`, gradient descent on L_align, eq. (7), with a rate that belongs
to the weights and not to the model: the optimiser of the model, its schedule and its clipping do not touch it.

Deviations from the paper, all options: sample weights are divided by their moving average, so that weights change the
balance between classes and not the size of the loss, and weights are clamped before use (both from the release).
"""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from cissod_bench.methods.gbs.gradient_matrix import gradient_matrix, gradient_ratio, jacobi_targets, softmax_weights
from cissod_bench.methods.softmax_focal import softmax_focal
from cissod_bench.ssod.branch import Branch
from cissod_bench.ssod.one_hot import one_hot

SEEN = 1e-8
"""Part of the moving average of G that a class has to have been in for eq. (6). At the paper's rate, a class without a
sample for 20,000 to 40,000 iterations is back among those that were never seen."""


class GradientReweightedFocalLoss(nn.Module):
    """Softmax focal loss with gradient-balanced class weights.

    All state lies in buffers, float32: `matrix` is the moving average of G and `mass` the sum of its coefficients (so
    matrix / mass is free of the zero start), `seen` that sum for each class over the iterations with samples of it,
    `class_logits` are the a_i, `weights` the w_i of eq. (5), and
    `mean_weight` is the moving average of the sample weights.

    Args:
        num_classes: number of foreground classes n.
        gamma: focusing parameter of the focal loss (release: 1).
        beta: exponent that smooths the weights on labelled samples (paper: 0.5).
        unsup_weight: factor lambda_u of the pseudo-label loss, which its gradients share.
        eta: coefficient of the moving average of G per iteration (paper: 0.9995).
        rho: step of the class logits per iteration; stable below 2 w_bg / (n + 1).
        warmup: iterations before the weights move and count.
        reweight: False keeps the matrix and the weights without using them in the loss (GbT alone).
        normalize: divide sample weights by their moving average.
        mean_rate: rate of that moving average per branch (release: 0.001); each branch counts by its own mean.
        bounds: smallest and largest weight of a sample.
        loss_weight: factor of the loss.
    """

    matrix: Tensor
    mass: Tensor
    seen: Tensor
    class_logits: Tensor
    weights: Tensor
    mean_weight: Tensor
    branch: Branch

    def __init__(
        self,
        num_classes: int,
        gamma: float = 1.0,
        beta: float = 0.5,
        unsup_weight: float = 4.0,
        eta: float = 0.9995,
        rho: float = 0.0123,
        warmup: int = 0,
        reweight: bool = True,
        normalize: bool = True,
        mean_rate: float = 0.001,
        bounds: tuple[float, float] = (1 / 3, 5.0),
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.gamma, self.beta, self.unsup_weight = gamma, beta, unsup_weight
        self.eta, self.rho, self.warmup = eta, rho, warmup
        self.reweight, self.normalize, self.mean_rate, self.bounds = reweight, normalize, mean_rate, bounds
        self.loss_weight = loss_weight
        self.branch = "off"
        size = num_classes + 1
        self.register_buffer("matrix", torch.zeros(size, size))
        self.register_buffer("mass", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(size))
        self.register_buffer("class_logits", torch.zeros(size))
        self.register_buffer("weights", torch.ones(size))
        self.register_buffer("mean_weight", torch.ones(()))
        self._pending: dict[Branch, Tensor] = {}

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Scalar loss of (N, n + 1) logits: sum over samples of s_j l_j f_j, divided by `avg_factor`.

        Args:
            cls_score: logits, background last.
            label: (N,) int64.
            weight: (N,) label weights l_j; ones if None.
            avg_factor: denominator, the number of samples if None. It holds label weights only, no class weights.
            reduction_override: must be None; the framework never overrides it.
        """
        if reduction_override is not None:
            raise ValueError("GradientReweightedFocalLoss has one reduction: a sum divided by avg_factor.")
        logits = cls_score.float()
        label_weight = torch.ones_like(logits[:, 0]) if weight is None else weight.float()
        sample_weight = self._sample_weights(label)
        if self.branch != "off":
            self._remember(logits, label, label_weight, sample_weight)
        if self.normalize:
            sample_weight = sample_weight / self.mean_weight
        if not self.reweight:
            sample_weight = torch.ones_like(sample_weight)
        total = (sample_weight * label_weight * softmax_focal(logits, label, self.gamma)).sum()
        return self.loss_weight * total / (len(label) if avg_factor is None else avg_factor)

    def diagnostics(self) -> dict[str, Tensor]:
        """(n + 1,) class weights, and ratio of positive to negative gradients under them."""
        return {"weights": self.weights, "gradient_ratio": gradient_ratio(self.matrix, self.weights)}

    def _sample_weights(self, label: Tensor) -> Tensor:
        """(N,) clamped weights of the samples' classes, to the power of beta on labelled samples."""
        weights = self.weights.clamp(*self.bounds)
        return (weights**self.beta if self.branch == "sup" else weights)[label]

    @torch.no_grad()
    def _remember(self, logits: Tensor, label: Tensor, label_weight: Tensor, sample_weight: Tensor) -> None:
        """Keep the sums over this branch that `end_iteration` needs."""
        matrix = gradient_matrix(logits, label, label_weight, self.gamma)
        with torch.autocast(logits.device.type, enabled=False):  # the smallest weights vanish in half precision
            by_class = label_weight @ one_hot(label, len(self.seen), label_weight.dtype)
        # The loss's own: number of samples that count (labelled), sum of their weights (pseudo-labelled).
        denominator = (label_weight > 0).sum() if self.branch == "sup" else label_weight.sum()
        counts = torch.stack([denominator.float(), sample_weight.sum(), sample_weight.new_full((), len(label))])
        self._pending[self.branch] = torch.cat([matrix.flatten(), by_class, counts])

    @torch.no_grad()
    def end_iteration(self, iteration: int) -> None:
        """Update the moving averages and, after the warm-up, take one step of the weights. Equal on all ranks.

        Args:
            iteration: of the run, from 0.
        """
        classes = len(self.seen)
        empty = self.matrix.new_zeros(classes * classes + classes + 3)
        both = torch.stack([self._pending.get("sup", empty), self._pending.get("unsup", empty)])
        self._pending = {}
        all_reduce(both)
        sums, by_class, counts = both[:, : -classes - 3], both[:, -classes - 3 : -3], both[:, -3:]
        scale = 1 / counts[:, 0].clamp(min=1.0)
        scale[1] *= self.unsup_weight
        matrix = (sums * scale[:, None]).sum(dim=0).view_as(self.matrix)
        # A batch with a NaN must not stay in the average for ever; the training loop is what stops on it.
        step = (1 - self.eta) * torch.isfinite(matrix).all()
        self.matrix.add_(step * (torch.nan_to_num(matrix) - self.matrix))
        self.mass.add_(step * (1 - self.mass))
        self.seen.add_(step * ((by_class > 0).any(dim=0).float() - self.seen))
        for _, total, samples in counts:
            step = self.mean_rate * (samples > 0)
            self.mean_weight.add_(step * (total / samples.clamp(min=1.0) - self.mean_weight))
        if iteration >= self.warmup:
            seen = self.seen > SEEN * self.mass
            targets = jacobi_targets(
                self.matrix / self.mass.clamp(min=torch.finfo(torch.float32).tiny),
                self.weights,
                seen,
                lowest=self.bounds[0],
                highest=self.bounds[1],
            )
            self.class_logits.add_(self.rho * (targets.log() - self.class_logits))
            self.weights.copy_(softmax_weights(self.class_logits, seen, self.bounds[1]))
