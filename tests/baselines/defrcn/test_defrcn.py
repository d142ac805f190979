"""DeFRCN's layers against autograd, its heads and gradients against mmdet's, its choice of images against a loop."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cissod_bench.baselines import soft_teacher
from cissod_bench.baselines.defrcn import defrcn
from cissod_bench.baselines.defrcn.defrcn import Options, configure
from cissod_bench.baselines.defrcn.heads import Decoupling, DropoutLinear, decouple, reinitialise, start_fine_tuning
from cissod_bench.baselines.defrcn.stages import balanced_images
from cissod_bench.errors import UserError
from cissod_bench.training.build_config import merged
from tests.methods.plain import CONTEXT, teacher_student_of
from tests.ssod.models import batch, detector_config, teacher_student

MINORITY = (2, 7, 11)


def test_the_gradient_alone_is_scaled() -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, 5, dtype=torch.float64)
    for factor in (0.0, 0.01, 0.75, 1.0):
        y = decouple(x, factor)
        assert torch.equal(y, x)
        (gradient,) = torch.autograd.grad(y, x, upstream)
        assert torch.equal(gradient, upstream * factor)
        # By hand: everything but a part `factor` of the way back is cut off.
        by_hand = (factor * x + ((1 - factor) * x).detach()).square().sum()
        (expected,) = torch.autograd.grad(by_hand, x)
        (actual,) = torch.autograd.grad(decouple(x, factor).square().sum(), x)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_the_affine_layer_has_the_full_gradient_and_one_pair_a_channel_for_all_levels() -> None:
    layer = Decoupling(4, 0.25).double()
    levels = tuple(torch.randn(2, 4, size, size + 1, dtype=torch.float64, requires_grad=True) for size in (3, 6))
    for level, same in zip(levels, layer(levels), strict=True):
        assert torch.equal(level, same), "the identity at the start"
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4))
        layer.bias.copy_(torch.randn(4))
    outputs = layer(levels)
    upstream = [torch.randn_like(output) for output in outputs]
    loss = sum((output * weight).sum() for output, weight in zip(outputs, upstream, strict=True))
    gradients = torch.autograd.grad(loss, [layer.weight, layer.bias, *levels])
    weight_gradient, bias_gradient = np.zeros(4), np.zeros(4)
    for level, output, above, below in zip(levels, outputs, upstream, gradients[2:], strict=True):
        for channel in range(4):
            w, b = layer.weight[channel].item(), layer.bias[channel].item()
            x, g = level[:, channel].detach().numpy(), above[:, channel].numpy()
            np.testing.assert_allclose(output[:, channel].detach(), w * x + b, rtol=1e-12)
            weight_gradient[channel] += (g * x).sum()
            bias_gradient[channel] += g.sum()
            np.testing.assert_allclose(below[:, channel], 0.25 * w * g, rtol=1e-12)
    np.testing.assert_allclose(gradients[0], weight_gradient, rtol=1e-10)
    np.testing.assert_allclose(gradients[1], bias_gradient, rtol=1e-10)


def decoupled(rpn: float, roi: float) -> Any:
    """A student with decoupled heads that has the weights of `teacher_student()`'s."""
    model = teacher_student_of(configure(CONTEXT, Options(rpn_gradient=rpn, roi_gradient=roi, threshold=0.1)))
    missing, unexpected = model.student.load_state_dict(teacher_student().student.state_dict(), strict=False)
    assert not unexpected
    assert sorted(missing) == sorted(
        f"{head}.decoupling.{name}" for head in ("rpn_head", "roi_head") for name in ("weight", "bias")
    )
    model.teacher.load_state_dict(model.student.state_dict())
    return model


def gradients_of(student: Any, select: Callable[[str], bool]) -> dict[str, Tensor]:
    """Gradients of the chosen losses of a batch, by parameter."""
    inputs, samples = batch(0)
    torch.manual_seed(0)
    losses = student.loss(inputs["sup"], samples["sup"])
    chosen = [value for name, values in losses.items() if "loss" in name and select(name)
              for value in (values if isinstance(values, list) else [values])]  # fmt: skip
    names, parameters = zip(*student.named_parameters(), strict=True)
    found = torch.autograd.grad(sum(chosen), parameters, allow_unused=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


@pytest.mark.parametrize(("rpn", "roi"), [(0.0, 0.75), (0.0, 0.01), (0.3, 0.0)])
def test_the_shared_trunk_gets_lambda_times_the_gradient_of_each_head(rpn: float, roi: float) -> None:
    plain, ours = teacher_student().student, decoupled(rpn, roi).student
    for factor, select in ((rpn, lambda name: "rpn" in name), (roi, lambda name: "rpn" not in name)):
        expected, actual = gradients_of(plain, select), gradients_of(ours, select)
        trunk = [name for name in expected if name.startswith(("backbone", "neck"))]
        assert len(trunk) > 40
        assert any(expected[name].abs().sum() > 0 for name in trunk)
        for name in trunk:
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(
                actual[name], factor * expected[name], rtol=1e-3, atol=1e-5 * scale, msg=f"{name} at {factor}"
            )
            if factor == 0:
                assert (actual[name] == 0).all(), name
        heads = [name for name in expected if name not in trunk]
        for name in heads:
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-6, msg=f"{name} in full")
        layers = [name for name in actual if "decoupling" in name]
        assert len(layers) == 2
        assert all(actual[name].abs().sum() > 0 for name in layers), "the affine layer learns at any lambda"


def test_the_model_finds_and_loses_at_the_start_what_the_plain_one_does() -> None:
    plain, ours = teacher_student(), decoupled(0.0, 0.75)
    ours.threshold.values.copy_(plain.threshold.values)
    inputs, samples = batch(1)
    torch.manual_seed(0)
    expected = plain.loss(*copy.deepcopy((inputs, samples)))
    torch.manual_seed(0)
    actual = ours.loss(inputs, samples)
    assert expected.keys() == actual.keys()
    assert expected["unsup_loss_cls"] > 0
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for mine, theirs in zip(ours.view.detections, plain.view.detections, strict=True):
        assert len(mine) > 0
        for field in ("bboxes", "labels", "scores"):
            torch.testing.assert_close(mine[field], theirs[field])


@pytest.mark.parametrize("head", ["rpn_head", "roi_head"])
def test_no_way_into_a_head_goes_round_its_layer(head: str) -> None:
    """With a poisoned affine layer nothing finite comes out of the framework's hand-written calls either."""
    model = decoupled(0.0, 0.75)
    inputs, samples = batch(1)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    with torch.no_grad():
        getattr(model.teacher, head).decoupling.weight.fill_(float("nan"))
        getattr(model.student, head).decoupling.weight.fill_(float("nan"))
    if head == "rpn_head":
        features = model.student.extract_feat(inputs["unsup_student"])
        for scores in (model.student.rpn_head(features)[0], model.teacher.rpn_head(features)[0]):
            assert all(torch.isnan(level).all() for level in scores)
    else:
        rois = [torch.tensor([[5.0, 8, 50, 60]]), torch.tensor([[60.0, 10, 120, 50]])]
        assert torch.isnan(model.background_scores(rois, samples["unsup_student"], view)).all()
        jittered = model.box_uncertainty(view.features, view.samples, view.pseudo)
        assert torch.isnan(torch.cat(jittered)).all()
        assert len(torch.cat(jittered)) > 0
        losses = model.student.loss(inputs["sup"], samples["sup"])
        assert torch.isnan(losses["loss_cls"])
        assert torch.isnan(losses["loss_bbox"])


def test_dropout_is_on_the_classifier_alone_in_the_second_stage_alone_and_never_in_the_teacher() -> None:
    model = decoupled(0.0, 0.75)
    head, teacher = model.student.roi_head.bbox_head, model.teacher.roi_head.bbox_head
    x = torch.randn(4, 48, 7, 7)
    first = [head(x) for _ in range(2)]
    assert torch.equal(first[0][0], first[1][0])
    start_fine_tuning(model.student, 0.01, 0.8)
    model.train()
    second = [head(x) for _ in range(2)]
    assert not torch.equal(second[0][0], second[1][0])
    for scores, deltas in second:
        assert torch.equal(deltas, first[0][1])
        assert not torch.equal(scores, first[0][0])
    assert torch.equal(teacher(x)[0], teacher(x)[0])
    head.eval()
    assert torch.equal(head(x)[0], first[0][0])


def test_dropout_keeps_a_fifth_five_times_as_large() -> None:
    layer = DropoutLinear(1000, 1, bias=False)
    layer.rate = 0.8
    nn.init.ones_(layer.weight)
    torch.manual_seed(0)
    kept = torch.stack([layer(torch.ones(1, 1000))[0, 0] / 5 for _ in range(50)])
    assert kept.mean().item() == pytest.approx(200, rel=0.05)
    assert torch.equal(kept, kept.round())


def test_the_second_stage_freezes_the_shared_layers_and_nothing_else() -> None:
    model = decoupled(0.0, 0.75)
    before = {name for name, parameter in model.student.named_parameters() if parameter.requires_grad}
    start_fine_tuning(model.student, 0.01, 0.8)
    after = {name for name, parameter in model.student.named_parameters() if parameter.requires_grad}
    shared = {f"roi_head.bbox_head.shared_fcs.{layer}.{name}" for layer in (0, 1) for name in ("weight", "bias")}
    assert before - after == shared
    assert model.student.roi_head.decoupling.factor == 0.01
    assert model.student.rpn_head.decoupling.factor == 0.0


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_rows_of_minority_classes_are_drawn_anew_and_no_others(class_agnostic: bool) -> None:
    from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead

    head = Shared2FCBBoxHead(
        in_channels=4, fc_out_channels=500, roi_feat_size=7, num_classes=12, reg_class_agnostic=class_agnostic
    )
    with torch.no_grad():
        for layer in (head.fc_cls, head.fc_reg):
            layer.weight.fill_(7.0)
            layer.bias.fill_(7.0)
    reinitialise(head, MINORITY, torch.Generator().manual_seed(5))
    for label in range(13):
        new = label in MINORITY
        assert (head.fc_cls.bias[label] == (0 if new else 7)).all()
        assert (head.fc_cls.weight[label] == 7).all() != new
    rows = head.fc_cls.weight[list(MINORITY)]
    assert rows.std().item() == pytest.approx(0.01, rel=0.1)
    assert abs(rows.mean().item()) < 0.001
    for row in range(len(head.fc_reg.bias)):
        new = not class_agnostic and row // 4 in MINORITY
        assert (head.fc_reg.bias[row] == (0 if new else 7)).all()
        assert (head.fc_reg.weight[row] == 7).all() != new
    if not class_agnostic:
        boxes = head.fc_reg.weight.view(12, 4, 500)[list(MINORITY)]
        assert boxes.std().item() == pytest.approx(0.01, rel=0.1)
    again = copy.deepcopy(head)
    reinitialise(again, MINORITY, torch.Generator().manual_seed(5))
    assert torch.equal(again.fc_cls.weight, head.fc_cls.weight)


def naive_balanced(
    labels: list[list[int]], chosen: list[bool], order: list[int], num_classes: int, shots: int
) -> list[bool]:
    """The definition, everything counted again each time."""
    taken = {image for image, already in enumerate(chosen) if already}
    everything = [label for found in labels for label in found]
    for label in sorted(range(num_classes), key=lambda label: (everything.count(label), label)):
        for image in order:
            have = sum(labels[other].count(label) for other in taken)
            if have < shots and label in labels[image]:
                taken.add(image)
    return [image in taken for image in range(len(labels))]


@given(
    labels=st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=15),
    shots=st.integers(1, 6),
    data=st.data(),
)
def test_the_balanced_set_is_that_of_the_naive_loop(labels: list[list[int]], shots: int, data: Any) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    order = data.draw(st.permutations(range(len(labels))))
    arrays = [np.array(found, dtype=np.int64) for found in labels]
    actual = balanced_images(arrays, np.array(chosen), np.array(order), 5, shots)
    assert actual.tolist() == naive_balanced(labels, chosen, list(order), 5, shots)
    assert (actual | ~np.array(chosen)).all(), "what was chosen stays"
    counts = np.bincount(np.concatenate([arrays[i] for i in np.flatnonzero(actual)] + [arrays[0][:0]]), minlength=5)
    everything = np.bincount(np.concatenate(arrays), minlength=5)
    assert (counts >= np.minimum(shots, everything)).all(), "enough of each class, or all there is"


def test_a_split_without_a_majority_is_refused() -> None:
    with pytest.raises(UserError, match="learns the majority classes first"):
        configure(dataclasses.replace(CONTEXT, minority=tuple(range(12))), Options())


@pytest.mark.parametrize(("iterations", "fraction", "start"), [(180_000, 0.05, 171_000), (4, 0.05, 3), (100, 0.3, 70)])
def test_the_second_stage_takes_its_part_of_the_run(iterations: int, fraction: float, start: int) -> None:
    context = dataclasses.replace(CONTEXT, iterations=iterations)
    (hook,) = configure(context, Options(fine_tuning=fraction)).hooks
    assert hook["start"] == start
    assert hook["minority_images"] == str(Path("minority.txt"))


def _losses(method: Any, change: dict[str, Any], weights: dict[str, Tensor] | None) -> tuple[dict[str, float], Any]:
    """Losses of labelled images with ignored regions, by a changed detector whose weights are given."""
    config = method.configure(CONTEXT, method.Options())
    detector = merged(merged(detector_config(), change), config.detector)
    detector["roi_head"]["bbox_head"] |= {**config.bbox_head, "loss_cls": dict(config.loss_cls)}
    model: Any = teacher_student(detector, threshold=dict(config.threshold))
    if weights is not None:
        model.student.load_state_dict(weights, strict=False)
    inputs, samples = batch(0)
    for sample in samples["sup"]:
        truth = sample.gt_instances
        sample.gt_instances, sample.ignored_instances = truth[:1], truth[1:]
    torch.manual_seed(0)
    losses = model.loss_by_gt_instances(inputs["sup"], samples["sup"])
    values = {name: float(torch.as_tensor(value).detach().sum()) for name, value in losses.items()}
    return values, model.student.state_dict()


IGNORED = {"train_cfg": {"rcnn": {"assigner": {"ignore_iof_thr": 0.5}}, "rpn": {"assigner": {"ignore_iof_thr": 0.5}}}}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rpn_head": {"loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}}},
        {"rpn_head": {"reg_decoded_bbox": True, "loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0}}},
        {"rpn_head": {"loss_cls": {"type": "FocalLoss", "use_sigmoid": True}}},
        {"roi_head": {"bbox_head": {"loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 2.0}}}},
        IGNORED,
    ],
    ids=["none", "smooth-l1", "giou", "focal", "box-smooth-l1", "ignored"],
)
def test_losses_of_a_users_detector_are_those_of_soft_teacher(change: dict[str, Any]) -> None:
    """The decoupling layers start as the identity, so that the same weights have the same losses."""
    expected, weights = _losses(soft_teacher, change, None)
    actual, _ = _losses(defrcn, change, weights)
    assert actual == pytest.approx(expected, rel=1e-5)


def test_the_second_stage_freezes_shared_convolutions_too() -> None:
    config = configure(CONTEXT, Options())
    layers = {"type": "ConvFCBBoxHead", "num_shared_convs": 2, "num_shared_fcs": 1}
    model: Any = teacher_student_of(dataclasses.replace(config, bbox_head={**config.bbox_head, **layers}))
    start_fine_tuning(model.student, roi_gradient=0.01, dropout=0.8)
    head = model.student.roi_head.bbox_head
    trained = {name.split(".")[0] for name, each in head.named_parameters() if each.requires_grad}
    assert trained == {"fc_cls", "fc_reg"}
