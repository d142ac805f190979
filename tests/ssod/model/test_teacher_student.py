"""`TeacherStudent` against mmdet's own Soft Teacher, and the traps that it has to avoid."""

from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.ssod.branch import branch
from cissod_bench.ssod.component import component
from tests.ssod.models import LOW, batch, build, detector_config, teacher_student, train_steps


def test_losses_equal_those_of_mmdet_soft_teacher_over_several_steps() -> None:
    """With samplers that take all boxes there are: which ones are left out otherwise is drawn in other ways."""
    detector = detector_config()
    for stage in ("rpn", "rcnn"):
        detector["train_cfg"][stage]["sampler"]["num"] = 10**6
    ours = teacher_student(detector)
    stock = build({"type": "SoftTeacher"}, detector, {**LOW, "cls_pseudo_thr": 0.13})
    stock.load_state_dict(ours.state_dict())
    expected, actual = train_steps(stock.train(), 4), train_steps(ours, 4)
    for step, (theirs, mine) in enumerate(zip(expected, actual, strict=True)):
        assert theirs["unsup_loss_bbox"] > 0, "no certain pseudo box: the comparison would say nothing"
        # unsup_acc is for the log only; the framework does not spend time on it.
        assert set(theirs) - set(mine) == {"unsup_acc"}
        for name, value in mine.items():
            assert value == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), f"step {step}, {name}"


class RecordingLoss(nn.Module):
    """Cross entropy that notes which pass it serves."""

    calls: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, scores: Tensor, target: Tensor, weight: Tensor, avg_factor: Any, **_: Any) -> Tensor:
        self.calls.append(getattr(self, "branch", "off"))
        return (nn.functional.cross_entropy(scores, target, reduction="none") * weight).sum() / avg_factor


def test_the_loss_serves_each_training_pass_once_and_nothing_else() -> None:
    detector = detector_config()
    detector["roi_head"]["bbox_head"]["loss_cls"] = component(RecordingLoss)
    model = teacher_student(detector)
    model.loss(*batch(0))
    assert model.loss_cls.calls == ["sup", "unsup"]
    assert model.teacher.roi_head.bbox_head.loss_cls.calls == []
    assert model.loss_cls.branch == "off"


def test_serving_ends_when_the_block_fails() -> None:
    loss = nn.CrossEntropyLoss()
    with pytest.raises(RuntimeError, match="inside"), branch(loss, "sup"):
        raise RuntimeError("inside")
    assert loss.branch == "off"


def test_the_teacher_only_ever_predicts() -> None:
    model = teacher_student()
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    assert all(module.training for module in model.student.roi_head.modules())
    model.loss(*batch(0))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.teacher.parameters())


def test_background_samples_weigh_what_the_teacher_believes() -> None:
    """Against a loop over RoIs that projects and scores each by itself."""
    model = teacher_student()
    inputs, samples = batch(3)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    rois = [torch.tensor([[5.0, 8, 50, 60], [30, 30, 90, 100]]), torch.tensor([[60.0, 10, 120, 50]])]
    actual = model.background_scores(rois, samples["unsup_student"], view)
    expected = []
    for image, boxes in enumerate(rois):
        student = samples["unsup_student"][image].homography_matrix
        teacher = samples["unsup_teacher"][image].homography_matrix
        for box in boxes:
            x_scale, y_scale = teacher[0, 0] / student[0, 0], teacher[1, 1] / student[1, 1]
            seen = box * torch.tensor([x_scale, y_scale, x_scale, y_scale])
            features = tuple(level[image : image + 1] for level in view.features)
            roi = torch.cat([torch.zeros(1), seen.clamp(0, 128)])[None]
            logits = model.teacher.roi_head._bbox_forward(features, roi)["cls_score"]
            expected.append(logits.softmax(-1)[0, -1])
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_batch_without_proposals_gives_zero_losses_that_reach_every_parameter() -> None:
    model = teacher_student()
    for proposals in (model.student.train_cfg.rpn_proposal, model.student.test_cfg.rpn, model.teacher.test_cfg.rpn):
        proposals.min_bbox_size = 10_000  # drops every proposal
    inputs, samples = batch(0)
    for sample in samples["sup"]:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model.loss(inputs, samples)
    loss, logs = model.parse_losses(losses)
    loss.backward()
    assert logs["sup_loss_cls"] == 0
    assert logs["unsup_loss_cls"] == 0
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.student.roi_head.parameters())


def test_one_image_without_proposals_does_not_disturb_the_others() -> None:
    model = teacher_student()
    inputs, samples = batch(0)
    for name in ("sup", "unsup_teacher", "unsup_student"):
        inputs[name][1] = 0.0
    samples["sup"][1].gt_instances = samples["sup"][1].gt_instances[:0]
    original = model.student.rpn_head.loss_and_predict

    def without_second(*args: Any, **kwargs: Any) -> Any:
        losses, proposals = original(*args, **kwargs)
        proposals[1] = proposals[1][:0]
        return losses, proposals

    model.student.rpn_head.loss_and_predict = without_second
    loss, logs = model.parse_losses(model.loss(inputs, samples))
    assert torch.isfinite(loss)
    assert logs["sup_loss_cls"] > 0


def test_burn_in_trains_on_labelled_images_alone() -> None:
    model = teacher_student(semi={"burn_in": 2})
    for iteration, semi in ((0, False), (1, False), (2, True)):
        model.iteration = iteration
        assert any(name.startswith("unsup_") for name in model.loss(*batch(0))) is semi


def test_the_threshold_policy_sees_every_detection_and_decides_by_class() -> None:
    model = teacher_student(semi={"pseudo_label_initial_score_thr": 0.2})
    seen: dict[str, Any] = {}
    model.threshold.update = lambda labels, scores, sizes: seen.update(labels=labels, scores=scores, sizes=sizes)
    inputs, samples = batch(1)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    assert len(seen["scores"]) == sum(len(found) for found in view.detections)
    assert seen["sizes"] == [len(found) for found in view.detections]
    assert seen["scores"].min() < 0.2, "detections below the initial filter are seen"

    label = int(seen["labels"][seen["scores"].argmax()])
    view.thresholds = torch.full((12,), 2.0)
    view.thresholds[label] = 0.0
    kept: list[InstanceData] = []
    original = model.sample_rois

    def record(proposals: Any, labels: list[InstanceData]) -> Any:
        kept.extend(labels)
        return original(proposals, labels)

    model.sample_rois = record
    model.loss_by_pseudo_labels(inputs["unsup_student"], samples["unsup_student"], view)
    for_class = torch.cat([found.labels for found in kept[:2]])
    assert len(for_class)
    assert set(for_class.tolist()) == {label}


def test_class_thresholds_choose_boxes_for_the_classifier_alone() -> None:
    """RPN and regression keep Soft Teacher's own rules: a fixed score, and how certain the box is."""
    model = teacher_student()
    inputs, samples = batch(1)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    given: dict[str, list[InstanceData]] = {}
    rpn_loss, roi_loss = model.rpn_loss, model.roi_loss

    def watched_rpn(features: Any, samples: Any, labels: Any) -> Any:
        given["rpn"] = labels
        return rpn_loss(features, samples, labels)

    def watched_roi(features: Any, proposals: Any, samples: Any, confident: Any, certain: Any, view: Any) -> Any:
        given.update(classifier=confident, regression=certain)
        return roi_loss(features, proposals, samples, confident, certain, view)

    model.rpn_loss, model.roi_loss = watched_rpn, watched_roi
    for thresholds in (torch.zeros(12), torch.linspace(0.1, 0.2, 12), torch.ones(12)):
        view.thresholds = thresholds
        labels = model.project(view, samples["unsup_student"])
        model.loss_by_pseudo_labels(inputs["unsup_student"], samples["unsup_student"], view)
        rules = {
            "rpn": lambda found: found.scores > model.semi_train_cfg.rpn_pseudo_thr,
            "classifier": lambda found, limits=thresholds: found.scores > limits[found.labels],
            "regression": lambda found: found.reg_uncs < model.semi_train_cfg.reg_pseudo_thr,
        }
        for name, rule in rules.items():
            for mine, found in zip(given[name], labels, strict=True):
                torch.testing.assert_close(mine.bboxes, found[rule(found)].bboxes)
        assert sum(map(len, given["rpn"])) > 0, "the comparison would say nothing"
        assert sum(map(len, given["regression"])) > 0
    assert sum(map(len, given["classifier"])) == 0
