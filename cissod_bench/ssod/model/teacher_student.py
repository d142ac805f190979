"""The framework: Soft Teacher for two-stage detectors, with seams for everything in which the methods differ.

The arithmetic is that of mmdet's `SoftTeacher` (Xu et al., ICCV 2021; design facts in mmdet 3.x), and a test holds the
two equal. What differs is what a method needs and a GPU likes:

* the classification loss is told which branch calls it (`branch.py`), and passes that mmdet throws away are left out;
* the thresholds of pseudo labels come from a policy (`thresholds.py`) that sees all detections of the teacher;
* the teacher stays in evaluation mode, also where its normalisation or dropout would notice;
* an image, and a batch, without proposals gives zero losses instead of an error;
* instance data are never deep-copied, the two RoI passes of the student share one forward, weights are summed on the
  device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from mmdet.models.detectors.semi_base import SemiBaseDetector
from mmdet.models.utils import rename_loss_dict, reweight_loss_dict
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.ssod.branch import branch
from cissod_bench.ssod.model.roi_extractor import pooling_layout
from cissod_bench.ssod.model.roi_head import RoISamples, box_loss, class_scores, sample_rois
from cissod_bench.ssod.model.sync_free_ops import make_sync_free
from cissod_bench.ssod.model.views import chosen, homographies, project, send
from cissod_bench.ssod.refinement import Refinement
from cissod_bench.ssod.source_file import import_file

Losses = dict[str, Any]


class Calibration(Protocol):
    """A second opinion on scores at test time; no torch module, so that checkpoints do not hold it."""

    def apply(self, path: Path, found: InstanceData) -> None:
        """Change the scores of an image's detections in place; the boxes are in pixels of the file."""


@dataclass
class TeacherView:
    """What the teacher saw and found on the weakly augmented views of one batch of unlabelled images.

    Attributes:
        features: feature maps of the neck.
        samples: meta information of the views.
        matrices: (B, 3, 3) homographies from the original images to the views, on the host.
        detections: for each image everything found (after NMS, before any filter) in the view's coordinates.
        pseudo: for each image the detections above the initial threshold in the original image's coordinates, with
            `reg_uncs`, the (K,) uncertainty of the boxes.
        thresholds: (n,) threshold of each class in this iteration.
    """

    features: tuple[Tensor, ...]
    samples: list[DetDataSample]
    matrices: Tensor
    detections: list[InstanceData]
    pseudo: list[InstanceData]
    thresholds: Tensor


class TeacherStudent(SemiBaseDetector):
    """Teacher and student detectors, and one training iteration of Soft Teacher with a method's parts in it.

    Args:
        detector: configuration of a two-stage detector, built twice.
        threshold: configuration of a threshold policy; `num_classes` is filled in.
        refinement: configuration of a `Refinement` of pseudo labels; `num_classes` and `channels` are filled in.
        method_file: a user's own Python file, imported before anything is built: it defines classes that the other
            arguments, and the configuration around them, name.
        semi_train_cfg: mmdet's keys for Soft Teacher, and `burn_in`, the number of first iterations on labelled images
            alone (0 in the paper).
        semi_test_cfg: mmdet's keys.
        data_preprocessor: mmdet's `MultiBranchDataPreprocessor`.
        init_cfg: mmengine's initialisation.
    """

    def __init__(
        self,
        detector: dict[str, Any],
        threshold: dict[str, Any],
        semi_train_cfg: dict[str, Any],
        semi_test_cfg: dict[str, Any],
        data_preprocessor: dict[str, Any] | None = None,
        refinement: dict[str, Any] | None = None,
        method_file: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if method_file is not None:
            import_file(Path(method_file))
        super().__init__(detector, semi_train_cfg, semi_test_cfg, data_preprocessor, init_cfg)
        head = self.student.roi_head.bbox_head
        self.threshold = MODELS.build({**threshold, "num_classes": head.num_classes})
        self.refinement: Refinement | None = None
        if refinement is not None:
            # Without a shared linear layer or pooling, the cells of the pooled map are features of their own.
            cells = 1 if head.num_shared_fcs or head.with_avg_pool else head.roi_feat_area
            sizes = {"num_classes": head.num_classes, "channels": head.shared_out_channels * cells}
            self.refinement = MODELS.build({**refinement, **sizes})
        for part in (self.student, self.teacher):
            make_sync_free(part)
        self.iteration = 0  # set by `TeacherStudentHook` before each iteration
        self.view: TeacherView | None = None  # of the current iteration; for hooks
        self.calibration: Calibration | None = None  # of scores at test time; set by a hook

    @property
    def loss_cls(self) -> nn.Module:
        """The student's RoI classification loss."""
        loss: nn.Module = self.student.roi_head.bbox_head.loss_cls
        return loss

    def init_weights(self) -> None:
        """Initialise, then lay out weights with channels last, for mmengine's own Runner on an exported configuration.

        The project's runner lays them out as its device likes them (`layout.py`). Not before: random numbers fill a
        tensor in the order of its memory.
        """
        super().init_weights()
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "TeacherStudent":
        """Set the training mode of all but the teacher, which only ever predicts."""
        super().train(mode)
        self.teacher.eval()
        return self

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> list[DetDataSample]:
        """Detections of (B, 3, H, W) images in `pred_instances`, in pixels of the files."""
        samples: list[DetDataSample] = super().predict(batch_inputs, batch_data_samples)
        if self.calibration is not None:
            for sample in samples:
                self.calibration.apply(Path(sample.img_path), sample.pred_instances)
        return samples

    def loss(
        self, multi_batch_inputs: dict[str, Tensor], multi_batch_data_samples: dict[str, list[DetDataSample]]
    ) -> Losses:
        """Losses of one iteration on the branches `sup`, `unsup_teacher` and `unsup_student`, or on `sup` alone.

        Args:
            multi_batch_inputs: for each branch (B, 3, H, W) normalised images.
            multi_batch_data_samples: for each branch the B samples.

        Returns:
            Scalar losses (or lists of them, per feature level), named as mmdet names them.
        """
        if self.refinement is not None:
            labels = [sample.gt_instances for sample in multi_batch_data_samples["sup"]]
            self.refinement.observe(self.teacher, multi_batch_inputs["sup"], labels)
        losses: Losses = self.loss_by_gt_instances(multi_batch_inputs["sup"], multi_batch_data_samples["sup"])
        self.view = None
        if "unsup_teacher" in multi_batch_inputs and self.iteration >= self.semi_train_cfg.get("burn_in", 0):
            self.view = self.teacher_view(
                multi_batch_inputs["unsup_teacher"], multi_batch_data_samples["unsup_teacher"]
            )
            losses |= self.loss_by_pseudo_labels(
                multi_batch_inputs["unsup_student"], multi_batch_data_samples["unsup_student"], self.view
            )
        end_iteration = getattr(self.loss_cls, "end_iteration", None)
        if callable(end_iteration):  # a loss that keeps state updates it once, after both passes
            with torch.autocast(multi_batch_inputs["sup"].device.type, enabled=False):
                end_iteration(self.iteration)
        return losses

    def loss_by_gt_instances(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> Losses:
        """Losses of the labelled images, (B, 3, H, W), with prefix `sup_`."""
        with branch(self.loss_cls, "sup"):
            losses: Losses = self.student.loss(batch_inputs, batch_data_samples)
        if "loss_cls" not in losses:  # no proposal in the whole batch
            losses["loss_cls"] = _untouched(self.student.roi_head)
        return dict(rename_loss_dict("sup_", reweight_loss_dict(losses, self.semi_train_cfg.sup_weight)))

    @torch.no_grad()
    def teacher_view(self, batch_inputs: Tensor, samples: list[DetDataSample]) -> TeacherView:
        """The teacher's detections on (B, 3, H, W) weakly augmented images, and the pseudo labels made of them."""
        features = self.teacher.extract_feat(batch_inputs)
        proposals = self.teacher.rpn_head.predict(features, samples, rescale=False)
        features = pooling_layout(features)  # once for the three times that RoIs are pooled from them
        detections = self.teacher.roi_head.predict(features, proposals, samples, rescale=False)
        counts = [len(found) for found in detections]
        scores = torch.cat([found.scores for found in detections])
        with torch.autocast(scores.device.type, enabled=False):
            self.threshold.update(torch.cat([found.labels for found in detections]), scores, counts)
        (kept,), (sizes,) = chosen((scores > self.semi_train_cfg.pseudo_label_initial_score_thr)[None], counts)
        offsets = [sum(counts[:image]) for image in range(len(counts))]
        pseudo = [
            found[index - offset]
            for found, index, offset in zip(detections, torch.split(kept, sizes), offsets, strict=True)
        ]
        uncertainties = self.box_uncertainty(features, samples, pseudo)
        for found, uncertainty in zip(pseudo, uncertainties, strict=True):
            found.reg_uncs = uncertainty
        if self.refinement is not None:
            self.refinement.refine(self.teacher, features, pseudo, self.iteration)
        matrices = homographies(samples)
        boxes = torch.cat([found.bboxes for found in pseudo])
        boxes = project(boxes, sizes, torch.linalg.inv(matrices), [sample.ori_shape for sample in samples])
        for found, original in zip(pseudo, torch.split(boxes, sizes), strict=True):
            found.bboxes = original
        thresholds = self.threshold.thresholds(self.iteration, getattr(self.loss_cls, "weights", None))
        return TeacherView(features, samples, matrices, detections, pseudo, thresholds)

    def box_uncertainty(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample], pseudo: list[InstanceData]
    ) -> list[Tensor]:
        """Spread of the teacher's box regression over jittered copies of each pseudo box.

        Returns:
            For each image the (K,) mean over the four coordinates of the standard deviation, in units of box size.
        """
        times, scale = self.semi_train_cfg.jitter_times, self.semi_train_cfg.jitter_scale
        boxes, labels = torch.cat([found.bboxes for found in pseudo]), torch.cat([found.labels for found in pseudo])
        counts, count = [len(found) for found in pseudo], len(boxes)
        if count == 0:
            return [found.scores.new_zeros(0) for found in pseudo]
        # For each box the number of its image, and the image's width and height twice.
        shapes = [sample.img_shape for sample in samples]
        table = torch.tensor([[image, *(width, height) * 2] for image, (height, width) in enumerate(shapes)])
        table = send(table.float()[torch.repeat_interleave(torch.tensor(counts))], boxes.device)

        size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).repeat(1, 2)
        # Drawn on the host: the same on every device.
        noise = send(torch.cat([torch.randn(times, each, 4) for each in counts], dim=1), boxes.device)
        jittered = boxes + noise * size * scale
        rois = torch.cat([table[:, :1].expand(times, count, 1), jittered], dim=-1).reshape(-1, 5)
        roi_head = self.teacher.roi_head
        deltas = roi_head._bbox_forward(features, rois)["bbox_pred"].view(times, count, -1, 4)
        # Last but one: classes, or 1 if class-agnostic.
        column = labels if deltas.shape[2] > 1 else torch.zeros_like(labels)
        deltas = deltas.gather(2, column[:, None, None].expand(times, count, 1, 4))
        found = roi_head.bbox_head.bbox_coder.decode(rois[:, 1:], deltas.view(-1, 4)).view(times, count, 4)
        found = torch.minimum(found.clamp(min=0), table[:, 1:])
        mean = found.mean(dim=0)
        size = (mean[:, 2:] - mean[:, :2]).clamp(min=1.0).repeat(1, 2)
        return list(torch.split((found.std(dim=0) / size).mean(dim=-1), counts))

    def loss_by_pseudo_labels(self, batch_inputs: Tensor, samples: list[DetDataSample], view: TeacherView) -> Losses:
        """Losses of the strongly augmented views (B, 3, H, W) of the images in `view`, with prefix `unsup_`."""
        labels = self.project(view, samples)
        scores, classes = torch.cat([found.scores for found in labels]), torch.cat([found.labels for found in labels])
        masks = [
            scores > self.semi_train_cfg.rpn_pseudo_thr,
            scores > view.thresholds[classes],
            torch.cat([found.reg_uncs for found in labels]) < self.semi_train_cfg.reg_pseudo_thr,
        ]
        indices, counts = chosen(torch.stack(masks), [len(found) for found in labels])
        boxes = torch.cat([found.bboxes for found in labels])
        for_rpn, confident, certain = (
            [
                InstanceData(bboxes=each, labels=label)
                for each, label in zip(
                    torch.split(boxes[index], count), torch.split(classes[index], count), strict=True
                )
            ]
            for index, count in zip(indices, counts, strict=True)
        )
        features = self.student.extract_feat(batch_inputs)
        losses, proposals = self.rpn_loss(features, samples, for_rpn)
        losses |= self.roi_loss(features, proposals, samples, confident, certain, view)
        losses = dict(rename_loss_dict("unsup_", reweight_loss_dict(losses, self.semi_train_cfg.unsup_weight)))
        if self.refinement is not None:
            losses |= self.refinement.loss(self.student, features, labels, self.iteration)
        return losses

    def project(self, view: TeacherView, samples: list[DetDataSample]) -> list[InstanceData]:
        """Pseudo labels in the coordinates of the student's views, without those that fall outside."""
        smallest_width, smallest_height = self.semi_train_cfg.min_pseudo_bbox_wh
        counts = [len(found) for found in view.pseudo]
        boxes = torch.cat([found.bboxes for found in view.pseudo])
        boxes = project(boxes, counts, homographies(samples), [sample.img_shape for sample in samples])
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        (index,), (sizes,) = chosen(((width > smallest_width) & (height > smallest_height))[None], counts)
        projected, offset = [], 0
        for found, inside in zip(view.pseudo, torch.split(index, sizes), strict=True):
            moved = found[inside - offset]
            moved.bboxes = boxes[inside]
            projected.append(moved)
            offset += len(found)
        return projected

    def rpn_loss(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample], labels: list[InstanceData]
    ) -> tuple[Losses, list[InstanceData]]:
        """Class-agnostic RPN losses on confident pseudo boxes, and the student's proposals."""
        targets = []
        for sample, found in zip(samples, labels, strict=True):
            target = DetDataSample(metainfo=sample.metainfo)
            target.gt_instances = InstanceData(bboxes=found.bboxes, labels=torch.zeros_like(found.labels))
            targets.append(target)
        proposal_cfg = self.student.train_cfg.get("rpn_proposal", self.student.test_cfg.rpn)
        losses, proposals = self.student.rpn_head.loss_and_predict(features, targets, proposal_cfg=proposal_cfg)
        return dict(losses), proposals

    def roi_loss(
        self,
        features: tuple[Tensor, ...],
        proposals: list[InstanceData],
        samples: list[DetDataSample],
        confident: list[InstanceData],
        certain: list[InstanceData],
        view: TeacherView,
    ) -> Losses:
        """Classification loss on pseudo labels above their thresholds, regression loss on those with certain boxes."""
        # One sampling and one forward serve both passes: images, and RoIs, are independent of each other.
        both = self.sample_rois([each.bboxes for each in proposals] * 2, confident + certain)
        for_class, for_box = both.split(len(samples))
        roi_head, head = self.student.roi_head, self.student.roi_head.bbox_head
        if len(both.rois) == 0:
            return {"loss_cls": _untouched(roi_head), "loss_bbox": _untouched(roi_head)}
        output = roi_head._bbox_forward(features, torch.cat([for_class.rois, for_box.rois]))
        cls_score, bbox_pred = output["cls_score"][: len(for_class.rois)], output["bbox_pred"][len(for_class.rois) :]

        losses: Losses = {}
        if len(for_class.rois):
            background = self.background_scores(torch.split(for_class.rois[:, 1:], for_class.counts), samples, view)
            weight = torch.where(for_class.labels == head.num_classes, background, for_class.weights)
            with branch(self.loss_cls, "unsup"):
                loss = self.loss_cls(cls_score, for_class.labels, weight, avg_factor=weight.sum().clamp(min=1.0))
            losses |= loss if isinstance(loss, dict) else {"loss_cls": loss}
        else:
            losses["loss_cls"] = _untouched(roi_head)
        losses["loss_bbox"] = box_loss(head, bbox_pred, for_box) if len(for_box.rois) else _untouched(roi_head)
        return losses

    def sample_rois(self, proposals: list[Tensor], labels: list[InstanceData]) -> RoISamples:
        """Assign the proposals of each image, (P, 4), to its pseudo labels and sample RoIs."""
        return sample_rois(self.student.roi_head, proposals, labels)

    @torch.no_grad()
    def background_scores(self, rois: Sequence[Tensor], samples: list[DetDataSample], view: TeacherView) -> Tensor:
        """The teacher's background score of the student's RoIs, which weigh background samples in the loss.

        Args:
            rois: for each image (R, 4) boxes in the student's view.
            samples: the student's views.
            view: the teacher's.

        Returns:
            (sum of R,) scores in [0, 1].
        """
        counts = [len(boxes) for boxes in rois]
        with torch.autocast(view.matrices.device.type, enabled=False):
            matrices = view.matrices @ torch.linalg.inv(homographies(samples))
        boxes = project(torch.cat(list(rois)), counts, matrices, [seen.img_shape for seen in view.samples])
        output = self.teacher.roi_head._bbox_forward(view.features, bbox2roi(torch.split(boxes, counts)))
        return class_scores(self.teacher.roi_head.bbox_head, output["cls_score"])[:, -1]


def _untouched(module: nn.Module) -> Tensor:
    """A zero loss in which every parameter of the module takes part, so that distributed training does not wait."""
    return torch.stack([parameter.sum() for parameter in module.parameters() if parameter.requires_grad]).sum() * 0.0
