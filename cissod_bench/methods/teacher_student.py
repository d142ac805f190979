"""The frame: Soft Teacher for two-stage detectors, with seams for everything in which the methods differ.

The arithmetic is that of mmdet's `SoftTeacher` (Xu et al., ICCV 2021; design facts in mmdet 3.x), and a test holds the
two equal. What differs is what a method needs and a GPU likes:

* the classification loss is told which pass it serves (`passes.py`), and the pass that is thrown away is not computed;
* the thresholds of pseudo labels come from a policy (`thresholds.py`) that sees all detections of the teacher;
* the teacher stays in evaluation mode, also where its normalisation or dropout would notice;
* an image, and a batch, without proposals gives zero losses instead of an error;
* instance data are never deep-copied, the two RoI passes of the student share one forward, weights are summed on the
  device.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors.semi_base import SemiBaseDetector
from mmdet.models.utils import rename_loss_dict, reweight_loss_dict
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_project
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.methods.passes import serving
from cissod_bench.methods.refinement import Refinement
from cissod_bench.methods.user import import_file

Losses = dict[str, Any]


@dataclass
class TeacherView:
    """What the teacher saw and found on the weakly augmented views of one batch of unlabelled images.

    Attributes:
        features: feature maps of the neck.
        samples: meta information of the views.
        matrices: for each image the (3, 3) homography from the original image to the view.
        detections: for each image everything found (after NMS, before any filter) in the view's coordinates.
        pseudo: for each image the detections above the initial threshold in the original image's coordinates, with
            `reg_uncs`, the (K,) uncertainty of the boxes.
        thresholds: (n,) threshold of each class in this iteration.
    """

    features: tuple[Tensor, ...]
    samples: list[DetDataSample]
    matrices: list[Tensor]
    detections: list[InstanceData]
    pseudo: list[InstanceData]
    thresholds: Tensor


@MODELS.register_module()
class TeacherStudent(SemiBaseDetector):
    """Teacher and student detectors, and one training iteration of Soft Teacher with a method's parts in it.

    Args:
        detector: configuration of a two-stage detector, built twice.
        threshold: configuration of a threshold policy; `num_classes` is filled in.
        refinement: configuration of a `Refinement` of pseudo labels; `num_classes` and `channels` are filled in.
        method_file: a user's own Python file, imported before anything is built: it registers what the other
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
            sizes = {"num_classes": head.num_classes, "channels": head.shared_out_channels}
            self.refinement = MODELS.build({**refinement, **sizes})
        self.iteration = 0  # set by the engine before each iteration
        self.view: TeacherView | None = None  # of the current iteration; for hooks
        self.observed: dict[str, Tensor] = {}  # (n,) numbers by class that hooks let be logged, by name

    @property
    def loss_cls(self) -> nn.Module:
        """The student's RoI classification loss."""
        loss: nn.Module = self.student.roi_head.bbox_head.loss_cls
        return loss

    def init_weights(self) -> None:
        """Initialise, then lay out weights with channels last: convolutions and features take the weights' format.

        Not before: random numbers fill a tensor in the order of its memory.
        """
        super().init_weights()
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "TeacherStudent":
        """Set the training mode of all but the teacher, which only ever predicts."""
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(
        self, multi_batch_inputs: dict[str, Tensor], multi_batch_data_samples: dict[str, list[DetDataSample]]
    ) -> Losses:
        """Losses of one iteration on the branches `sup`, `unsup_teacher` and `unsup_student`.

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
        if self.iteration >= self.semi_train_cfg.get("burn_in", 0):
            self.view = self.teacher_view(
                multi_batch_inputs["unsup_teacher"], multi_batch_data_samples["unsup_teacher"]
            )
            losses |= self.loss_by_pseudo_labels(
                multi_batch_inputs["unsup_student"], multi_batch_data_samples["unsup_student"], self.view
            )
        end_iteration = getattr(self.loss_cls, "end_iteration", None)
        if callable(end_iteration):  # a loss that keeps state updates it once, after both passes
            end_iteration(self.iteration)
        return losses

    def loss_by_gt_instances(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> Losses:
        """Losses of the labelled images, (B, 3, H, W), with prefix `sup_`."""
        with serving(self.loss_cls, "sup"):
            losses: Losses = self.student.loss(batch_inputs, batch_data_samples)
        if "loss_cls" not in losses:  # no proposal in the whole batch
            losses["loss_cls"] = _untouched(self.student.roi_head)
        return dict(rename_loss_dict("sup_", reweight_loss_dict(losses, self.semi_train_cfg.sup_weight)))

    @torch.no_grad()
    def teacher_view(self, batch_inputs: Tensor, samples: list[DetDataSample]) -> TeacherView:
        """The teacher's detections on (B, 3, H, W) weakly augmented images, and the pseudo labels made of them."""
        features = self.teacher.extract_feat(batch_inputs)
        proposals = self.teacher.rpn_head.predict(features, samples, rescale=False)
        detections = self.teacher.roi_head.predict(features, proposals, samples, rescale=False)
        self.threshold.update(
            torch.cat([found.labels for found in detections]),
            torch.cat([found.scores for found in detections]),
            [len(found) for found in detections],
        )
        initial = self.semi_train_cfg.pseudo_label_initial_score_thr
        pseudo = [found[found.scores > initial] for found in detections]
        matrices = [torch.from_numpy(sample.homography_matrix).to(batch_inputs.device) for sample in samples]
        uncertainties = self.box_uncertainty(features, samples, pseudo)
        for found, uncertainty in zip(pseudo, uncertainties, strict=True):
            found.reg_uncs = uncertainty
        if self.refinement is not None:
            self.refinement.refine(self.teacher, features, pseudo, self.iteration)
        for found, matrix, sample in zip(pseudo, matrices, samples, strict=True):
            found.bboxes = bbox_project(found.bboxes, matrix.inverse(), sample.ori_shape)
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
        jittered = []
        for found in pseudo:
            size = (found.bboxes[:, 2:] - found.bboxes[:, :2]).clamp(min=1).repeat(1, 2)
            noise = torch.randn(times, *found.bboxes.shape, device=found.bboxes.device)
            jittered.append(InstanceData(bboxes=(found.bboxes + noise * size * scale).reshape(-1, 4)))
        metas = [sample.metainfo for sample in samples]
        results = self.teacher.roi_head.predict_bbox(features, metas, jittered, rcnn_test_cfg=None, rescale=False)

        uncertainties = []
        for found, result in zip(pseudo, results, strict=True):
            count = len(found)
            if count == 0:
                uncertainties.append(found.scores.new_zeros(0))
                continue
            boxes = result.bboxes.reshape(times, count, -1, 4)  # last but one: classes, or 1 if class-agnostic
            column = found.labels if boxes.shape[2] > 1 else torch.zeros_like(found.labels)
            boxes = boxes[:, torch.arange(count, device=column.device), column]
            mean = boxes.mean(dim=0)
            size = (mean[:, 2:] - mean[:, :2]).clamp(min=1.0).repeat(1, 2)
            uncertainties.append((boxes.std(dim=0) / size).mean(dim=-1))
        return uncertainties

    def loss_by_pseudo_labels(self, batch_inputs: Tensor, samples: list[DetDataSample], view: TeacherView) -> Losses:
        """Losses of the strongly augmented views (B, 3, H, W) of the images in `view`, with prefix `unsup_`."""
        labels = self.project(view, samples)
        features = self.student.extract_feat(batch_inputs)
        losses, proposals = self.rpn_loss(features, samples, labels)
        losses |= self.roi_loss(features, proposals, samples, labels, view)
        losses = dict(rename_loss_dict("unsup_", reweight_loss_dict(losses, self.semi_train_cfg.unsup_weight)))
        if self.refinement is not None:
            losses |= self.refinement.loss(self.student, features, labels, self.iteration)
        return losses

    def project(self, view: TeacherView, samples: list[DetDataSample]) -> list[InstanceData]:
        """Pseudo labels in the coordinates of the student's views, without those that fall outside."""
        smallest_width, smallest_height = self.semi_train_cfg.min_pseudo_bbox_wh
        projected = []
        for found, sample in zip(view.pseudo, samples, strict=True):
            matrix = torch.from_numpy(sample.homography_matrix).to(found.bboxes.device)
            boxes = bbox_project(found.bboxes, matrix, sample.img_shape)
            width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
            inside = (width > smallest_width) & (height > smallest_height)
            moved = found[inside]
            moved.bboxes = boxes[inside]
            projected.append(moved)
        return projected

    def rpn_loss(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample], labels: list[InstanceData]
    ) -> tuple[Losses, list[InstanceData]]:
        """Class-agnostic RPN losses on confident pseudo boxes, and the student's proposals."""
        targets = []
        for sample, found in zip(samples, labels, strict=True):
            boxes = found.bboxes[found.scores > self.semi_train_cfg.rpn_pseudo_thr]
            target = DetDataSample(metainfo=sample.metainfo)
            target.gt_instances = InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes), dtype=torch.long))
            targets.append(target)
        proposal_cfg = self.student.train_cfg.get("rpn_proposal", self.student.test_cfg.rpn)
        losses, proposals = self.student.rpn_head.loss_and_predict(features, targets, proposal_cfg=proposal_cfg)
        return dict(losses), proposals

    def roi_loss(
        self,
        features: tuple[Tensor, ...],
        proposals: list[InstanceData],
        samples: list[DetDataSample],
        labels: list[InstanceData],
        view: TeacherView,
    ) -> Losses:
        """Classification loss on pseudo labels above their thresholds, regression loss on those with certain boxes."""
        confident = [found[found.scores > view.thresholds[found.labels]] for found in labels]
        certain = [found[found.reg_uncs < self.semi_train_cfg.reg_pseudo_thr] for found in labels]
        for_class = self.sample_rois(features, proposals, confident)
        for_box = self.sample_rois(features, proposals, certain)

        roi_head, head = self.student.roi_head, self.student.roi_head.bbox_head
        class_rois = bbox2roi([result.priors for result in for_class])
        box_rois = bbox2roi([result.priors for result in for_box])
        if len(class_rois) + len(box_rois) == 0:
            return {"loss_cls": _untouched(roi_head), "loss_bbox": _untouched(roi_head)}
        # One forward serves both passes: the RoIs are independent of each other.
        output = roi_head._bbox_forward(features, torch.cat([class_rois, box_rois]))
        cls_score, bbox_pred = output["cls_score"][: len(class_rois)], output["bbox_pred"][len(class_rois) :]

        losses: Losses = {}
        if len(class_rois):
            target, weight, _, _ = head.get_targets(for_class, self.student.train_cfg.rcnn)
            background = self.background_scores([result.priors for result in for_class], samples, view)
            weight = torch.where(target == head.num_classes, background.to(weight.dtype), weight)
            with serving(self.loss_cls, "unsup"):
                loss = self.loss_cls(cls_score, target, weight, avg_factor=weight.sum().clamp(min=1.0))
            losses |= loss if isinstance(loss, dict) else {"loss_cls": loss}
        else:
            losses["loss_cls"] = _untouched(roi_head)
        if len(box_rois):
            targets = head.get_targets(for_box, self.student.train_cfg.rcnn)
            losses["loss_bbox"] = head.loss(None, bbox_pred, box_rois, *targets)["loss_bbox"]
        else:
            losses["loss_bbox"] = _untouched(roi_head)
        return losses

    def sample_rois(
        self, features: tuple[Tensor, ...], proposals: list[InstanceData], labels: list[InstanceData]
    ) -> list[Any]:
        """Assign the proposals of each image to its pseudo labels and sample RoIs: one SamplingResult an image."""
        roi_head = self.student.roi_head
        results = []
        for index, (found, proposal) in enumerate(zip(labels, proposals, strict=True)):
            priors = InstanceData(priors=proposal.bboxes)
            assigned = roi_head.bbox_assigner.assign(priors, found)
            level_features = [level[index][None] for level in features]
            results.append(roi_head.bbox_sampler.sample(assigned, priors, found, feats=level_features))
        return results

    @torch.no_grad()
    def background_scores(self, rois: list[Tensor], samples: list[DetDataSample], view: TeacherView) -> Tensor:
        """The teacher's background score of the student's RoIs, which weigh background samples in the loss.

        Args:
            rois: for each image (R, 4) boxes in the student's view.
            samples: the student's views.
            view: the teacher's.

        Returns:
            (sum of R,) scores in [0, 1].
        """
        projected = []
        for boxes, sample, matrix, seen in zip(rois, samples, view.matrices, view.samples, strict=True):
            student = torch.from_numpy(sample.homography_matrix).to(matrix.device)
            projected.append(bbox_project(boxes, matrix @ student.inverse(), seen.img_shape))
        output = self.teacher.roi_head._bbox_forward(view.features, bbox2roi(projected))
        return self.class_scores(output["cls_score"])[:, -1]

    def class_scores(self, cls_score: Tensor) -> Tensor:
        """(R, n + 1) class scores of (R, C) logits, background last, by the head's own activation."""
        head = self.teacher.roi_head.bbox_head
        scores: Tensor = head.loss_cls.get_activation(cls_score) if head.custom_cls_channels else cls_score.softmax(-1)
        return scores


def _untouched(module: nn.Module) -> Tensor:
    """A zero loss in which every parameter of the module takes part, so that distributed training does not wait."""
    return torch.stack([parameter.sum() for parameter in module.parameters() if parameter.requires_grad]).sum() * 0.0
