"""DASO against deques, loops in float64 and autograd, and the head that it adds against mmdet's."""

import dataclasses
import math
from collections import deque

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.baselines.daso import Options, SemanticBlend, blend, blend_weights, configure, embed
from cissod_bench.ssod.component import component
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead
from tests.methods.plain import CONTEXT, teacher_student_of
from tests.ssod.models import batch, detector_config, teacher_student, train_steps

N, F, L = 5, 8, 4
LOW = {"theta": 0.08, "warmup": 0.0, "window": 2, "queue": 6}
SEMI = {"pseudo_label_initial_score_thr": 0.06, "rpn_pseudo_thr": 0.07, "reg_pseudo_thr": 0.5}


def build(**changes: object) -> SemanticBlend:
    return SemanticBlend(N, F, **{"queue": L, **changes})


def features(seed: int, number: int) -> Tensor:
    """Values that half precision holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 64, (number, F), generator=generator) / 8


def fill(module: SemanticBlend, empty: int = N - 1) -> list[deque[np.ndarray]]:
    """Random features for all classes but one, some of them more than a queue holds; the same in deques."""
    queues: list[deque[np.ndarray]] = [deque(maxlen=L) for _ in range(N)]
    generator = np.random.default_rng(0)
    for step in range(6):
        labels = generator.choice([label for label in range(N) if label != empty], 7, p=[0.7, 0.2, 0.05, 0.05])
        values = features(step, 7)
        module.enqueue(values, torch.tensor(labels))
        for label, value in zip(labels, values.double().numpy(), strict=True):
            queues[label].append(value)
    return queues


def naive_semantic(z: np.ndarray, queues: list[deque[np.ndarray]]) -> np.ndarray:
    """q of one feature: cosines with the queues' means, over 0.05, classes without features left out."""
    logits = np.full(N, -math.inf)
    for label, queue in enumerate(queues):
        if queue:
            prototype = sum(queue) / len(queue)
            cosine = (z * prototype).sum() / math.sqrt((z * z).sum() * (prototype * prototype).sum())
            logits[label] = cosine / 0.05
    scores = np.exp(logits - logits.max())
    return scores / scores.sum()


def test_queues_hold_the_last_features_of_each_class() -> None:
    module = build()
    queues = fill(module)
    for label, queue in enumerate(queues):
        held = module.features[label, : min(int(module.queued[label]), L)].double().numpy()
        assert sorted(map(tuple, held)) == sorted(map(tuple, queue))
    assert module.queued.max() > L
    assert module.queued[N - 1] == 0
    module.enqueue(features(99, 10), torch.zeros(10, dtype=torch.long))  # more than a queue at once
    assert sorted(map(tuple, module.features[0].tolist())) == sorted(map(tuple, features(99, 10)[-L:].tolist()))
    before = module.features.clone()
    module.enqueue(features(0, 0), torch.zeros(0, dtype=torch.long))
    assert torch.equal(module.features, before)


def test_semantic_scores_equal_the_naive_loop() -> None:
    module = build()
    queues = fill(module)
    z = features(7, 6)
    actual = module.similarities(z).softmax(dim=1)
    expected = [naive_semantic(row, queues) for row in z.double().numpy()]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)
    assert (actual[:, N - 1] == 0).all(), "no labelled feature, no part in q"


def test_blend_weights_of_the_histogram_60_30_10() -> None:
    counts = torch.tensor([60.0, 30.0, 10.0])
    np.testing.assert_allclose(blend_weights(counts, 0.3), [1, 0.0992, 0.0026], atol=1e-4)
    np.testing.assert_allclose(blend_weights(counts, 1.5), [1, 0.630, 0.303], atol=5e-4)
    assert blend_weights(torch.zeros(3), 0.3).tolist() == [0, 0, 0]


def test_blend_equals_the_naive_loop_and_is_nothing_at_weight_zero() -> None:
    generator = np.random.default_rng(3)
    p, q = generator.dirichlet(np.ones(N + 1), 40), generator.dirichlet(np.ones(N) / 3, 40)
    u = np.array([1.0, 0.5, 0.1, 0.0, 0.9])
    labels, scores = blend(torch.tensor(p), torch.tensor(q), torch.tensor(u))
    for j in range(40):
        foreground = 1 - p[j, N]
        predicted = max(range(N), key=lambda c: p[j, c])
        mixed = [(1 - u[predicted]) * p[j, c] / foreground + u[predicted] * q[j, c] for c in range(N)]
        assert labels[j] == max(range(N), key=lambda c: mixed[c])
        assert scores[j].item() == pytest.approx(max(mixed) * foreground)
    labels, scores = blend(torch.tensor(p), torch.tensor(q), torch.zeros(N))
    assert labels.tolist() == p[:, :N].argmax(1).tolist()
    np.testing.assert_allclose(scores, p[:, :N].max(1))


def test_the_class_distribution_is_that_of_the_window_before() -> None:
    module = build(window=3, distribution_temperature=1.5)
    windows = [[[0, 0, 1], [], [0, 2, 2]], [[], [], []], [[4], [4, 1], [1]]]
    expected = [np.zeros(N), None, None, None]
    first = np.array([3, 1, 2, 0, 0]) / 3
    expected[1:] = [first ** (1 / 1.5), first ** (1 / 1.5), np.array([0, 1.0, 0, 0, 1.0])]
    iteration = 0
    for window, before, after in zip(windows, expected[:-1], expected[1:], strict=True):
        for position, labels in enumerate(window):
            np.testing.assert_allclose(module.weights, before, rtol=1e-6, err_msg=f"{window}, {position}")
            module.note(torch.tensor(labels, dtype=torch.long), iteration)
            iteration += 1
        np.testing.assert_allclose(module.weights, after, rtol=1e-6)


def test_several_iterations_equal_deques_and_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues, semantic scores, blend and class distribution together, as the framework calls them; N - 1 is unlabelled.

    The third iteration has no labelled box, the fourth no pseudo label, and both windows of two end in between.
    """
    monkeypatch.setattr("cissod_bench.baselines.daso.embed", lambda roi_head, maps, boxes: torch.cat(maps))
    module = build(window=2, warmup=1, distribution_temperature=1.5)
    queues: list[deque[np.ndarray]] = [deque(maxlen=L) for _ in range(N)]
    counts, weights = np.zeros(N), np.zeros(N)
    generator = np.random.default_rng(5)
    changed = 0
    for iteration, (labelled, found) in enumerate([(9, 4), (7, 6), (0, 5), (8, 0), (6, 7), (5, 6)]):
        z, classes = features(20 + iteration, labelled), generator.integers(0, N - 1, labelled)
        teacher = Student(z)
        teacher.extract_feat = lambda inputs, z=z: [z]  # type: ignore[attr-defined]
        module.observe(teacher, z, [InstanceData(bboxes=torch.zeros(labelled, 4), labels=torch.tensor(classes))])
        for label, value in zip(classes, z.double().numpy(), strict=True):
            queues[label].append(value)

        p, seen = generator.dirichlet(np.full(N + 1, 0.7), found), features(40 + iteration, found)
        labels = p[:, :N].argmax(1) if found else np.zeros(0, dtype=np.int64)
        given = InstanceData(
            bboxes=torch.zeros(found, 4),
            labels=torch.tensor(labels),
            scores=torch.tensor(p[np.arange(found), labels], dtype=torch.float32),
            class_scores=torch.tensor(p, dtype=torch.float32),
        )
        module.refine(Student(seen), [seen], [given], iteration)
        for j in range(found):
            q = naive_semantic(seen[j].double().numpy(), queues)
            u = weights[labels[j]] if iteration >= 1 else 0.0
            mixed = [(1 - u) * p[j, c] / (1 - p[j, N]) + u * q[c] for c in range(N)]
            best = max(range(N), key=lambda c: mixed[c])
            assert given.labels[j] == best
            assert given.scores[j].item() == pytest.approx(mixed[best] * (1 - p[j, N]), rel=1e-4)
            np.testing.assert_allclose(given.semantic[j], q, rtol=1e-4, atol=1e-7)
            changed += best != labels[j]
            counts[best] += 1
        if iteration % 2:
            weights = (counts / counts.max()) ** (1 / 1.5) if counts.any() else weights
            counts[:] = 0
        np.testing.assert_allclose(module.weights, weights, rtol=1e-5)
        np.testing.assert_allclose(module.counts, counts)
    assert changed > 3, "the blend never mattered"
    assert module.queued[N - 1] == 0


class Student:
    """A detector whose RoI features are given: one box one feature."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden
        self.roi_head = self
        self.bbox_roi_extractor = self
        self.bbox_head = self
        self.num_inputs = 1
        self.shared_convs: list[object] = []
        self.shared_fcs: list[object] = []
        self.with_avg_pool = False

    def __call__(self, maps: object, rois: Tensor) -> Tensor:
        assert len(rois) == len(self.hidden)
        return self.hidden


def test_alignment_loss_and_gradient_equal_autograd_of_the_naive_form() -> None:
    module = build(alignment=0.7)
    queues = fill(module)
    z, teacher = features(11, 5).requires_grad_(), features(12, 5)
    target = np.array([naive_semantic(row, queues) for row in teacher.double().numpy()])
    pseudo = [InstanceData(bboxes=torch.rand(size, 4)) for size in (2, 0, 3)]
    for found, part in zip(pseudo, torch.tensor(target, dtype=torch.float32).split([2, 0, 3]), strict=True):
        found.semantic = part
    value = module.loss(Student(z), (z,), pseudo, 0)["loss_alignment"]
    (gradient,) = torch.autograd.grad(value, z)

    student = z.detach().double().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for j in range(5):
        logits = []
        for queue in queues[:-1]:
            prototype = torch.tensor(sum(queue) / len(queue))
            logits.append(student[j] @ prototype / (student[j].norm() * prototype.norm()) / 0.05)
        logs = torch.stack(logits).log_softmax(0)
        expected = expected - 0.7 * (torch.tensor(target[j, :-1]) * logs).sum() / 5
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


def test_nothing_happens_before_the_warmup_without_features_and_without_pseudo_labels() -> None:
    def pseudo() -> list[InstanceData]:
        scores = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05]])
        found = InstanceData(
            bboxes=torch.rand(1, 4), labels=torch.tensor([0]), scores=scores[:, 0], class_scores=scores
        )
        return [found]

    z = features(1, 1)
    for filled, iteration, active in ((False, 9, False), (True, 2, False), (True, 9, True)):
        module = build(warmup=5, queue=L)
        module.weights.fill_(1.0)
        if filled:
            module.enqueue(z, torch.tensor([3]))
        found = pseudo()
        module.refine(Student(z), (z,), found, iteration)
        assert (found[0].labels.item() == 3) is active
        assert found[0].scores.item() == pytest.approx(0.95 if active else 0.6)
        student = features(2, 1).requires_grad_()
        loss = module.loss(Student(student), (student,), found, iteration)["loss_alignment"]
        assert loss.item() == 0.0, "with one prototype q is certain on both sides"
    assert module.loss(Student(z[:0]), (z,), [InstanceData(bboxes=torch.rand(0, 4))], 9)["loss_alignment"] == 0


def test_the_head_finds_what_mmdets_finds_and_says_from_which_scores() -> None:
    detector = detector_config()
    detector["roi_head"]["bbox_head"] |= component(ClassScoresBBoxHead)
    ours, stock = teacher_student(detector), teacher_student()
    inputs, samples = batch(0)
    expected = stock.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"]).detections
    actual = ours.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"]).detections
    for mine, theirs in zip(actual, expected, strict=True):
        assert len(mine) > 0
        for field in ("bboxes", "labels", "scores"):
            torch.testing.assert_close(mine[field], theirs[field])
        assert mine.class_scores.shape == (len(mine), 13)
        torch.testing.assert_close(mine.class_scores.sum(1), torch.ones(len(mine)))
        torch.testing.assert_close(mine.class_scores.gather(1, mine.labels[:, None])[:, 0], mine.scores)


def test_embeddings_are_what_the_classifier_sees() -> None:
    model = teacher_student()
    inputs, _ = batch(0)
    maps = model.teacher.extract_feat(inputs["sup"])
    boxes = [torch.tensor([[5.0, 8, 50, 60]]), torch.tensor([[30.0, 30, 90, 100], [1, 1, 20, 30]])]
    rois = torch.cat([torch.cat([torch.full((len(b), 1), float(i)), b], 1) for i, b in enumerate(boxes)])
    expected = model.teacher.roi_head._bbox_forward(maps, rois)["cls_score"]
    torch.testing.assert_close(
        model.teacher.roi_head.bbox_head.fc_cls(embed(model.teacher.roi_head, maps, boxes)), expected
    )
    assert embed(model.teacher.roi_head, maps, [boxes[0][:0], boxes[0][:0]]).shape == (0, 128)


def test_the_framework_queues_teacher_features_of_labelled_boxes() -> None:
    model = teacher_student_of(configure(CONTEXT, Options(**LOW)), semi=SEMI)
    inputs, samples = batch(0)
    model.loss(inputs, samples)
    labels = torch.cat([sample.gt_instances.labels for sample in samples["sup"]])
    assert model.refinement.queued.tolist() == torch.bincount(labels, minlength=12).tolist()
    with torch.no_grad():
        maps = model.teacher.extract_feat(inputs["sup"])
        z = embed(model.teacher.roi_head, maps, [sample.gt_instances.bboxes for sample in samples["sup"]])
    last = {int(label): z[index] for index, label in enumerate(labels)}
    for label, expected in last.items():
        place = (int(model.refinement.queued[label]) - 1) % 6
        torch.testing.assert_close(model.refinement.features[label, place].float(), expected, rtol=1e-3, atol=1e-3)


def test_refined_labels_reach_the_threshold_and_the_alignment_loss_is_not_weighted_by_lambda() -> None:
    model = teacher_student_of(configure(CONTEXT, Options(**LOW)), semi=SEMI)
    inputs, samples = batch(0)
    model.loss(inputs, samples)
    model.refinement.weights.fill_(1.0)
    view = model.teacher_view(inputs["unsup_teacher"], samples["unsup_teacher"])
    changed = 0
    for found in view.pseudo:
        semantic = found.semantic.argmax(1)
        assert torch.equal(found.labels, semantic), "at weight 1 the semantic label rules"
        foreground = 1 - found.class_scores[:, -1]
        torch.testing.assert_close(found.scores, found.semantic.max(1).values * foreground)
        changed += int((found.class_scores[:, :-1].argmax(1) != semantic).sum())
    assert changed > 0

    logs = model.loss_by_pseudo_labels(inputs["unsup_student"], samples["unsup_student"], view)
    projected = model.project(view, samples["unsup_student"])
    maps = model.student.extract_feat(inputs["unsup_student"])
    alone = model.refinement.loss(model.student, maps, projected, 0)["loss_alignment"]
    assert logs["loss_alignment"].item() == pytest.approx(alone.item(), rel=1e-4)
    assert alone.item() > 0
    kept = sum(int((found.scores > 0.08).sum()) for found in projected)
    assert kept > 0


@pytest.mark.parametrize(
    "layers",
    [
        {"num_shared_convs": 2, "num_shared_fcs": 1, "conv_out_channels": 16},
        {"num_shared_convs": 2, "num_shared_fcs": 1},
        {"num_shared_convs": 1, "num_shared_fcs": 0, "conv_out_channels": 8},
        {"num_shared_convs": 1, "num_shared_fcs": 0, "conv_out_channels": 8, "with_avg_pool": True},
    ],
    ids=["narrow", "wide", "no-linear-layer", "pooled"],
)
def test_features_are_those_that_the_classifier_sees(layers: dict[str, object]) -> None:
    config = configure(CONTEXT, Options(**LOW))
    config = dataclasses.replace(config, bbox_head={**config.bbox_head, **layers})
    model = teacher_student_of(config, semi=SEMI)
    maps = model.teacher.extract_feat(batch(0)[0]["sup"])
    boxes = [torch.tensor([[5.0, 8, 50, 60]]), torch.tensor([[30.0, 30, 90, 100], [0.0, 0, 40, 20]])]
    head = model.teacher.roi_head
    logits = head._bbox_forward(maps, bbox2roi(boxes))["cls_score"]
    found = embed(head, maps, boxes)
    torch.testing.assert_close(head.bbox_head.fc_cls(found), logits)
    assert found.shape[1] == model.refinement.features.shape[2]
    assert math.isfinite(train_steps(model, 1)[0]["loss"])


def test_the_alignment_loss_trains_the_student() -> None:
    model = teacher_student_of(configure(CONTEXT, Options(**LOW)), semi=SEMI)
    history = train_steps(model, 3)
    assert all(logs["loss_alignment"] > 0 for logs in history)
    assert model.refinement.weights.max() == 1.0, "a window of two iterations is over"
    inputs, samples = batch(3)
    loss = model.loss(inputs, samples)["loss_alignment"]
    gradients = torch.autograd.grad(loss, list(model.student.parameters()), allow_unused=True)
    touched = {
        name
        for (name, _), value in zip(model.student.named_parameters(), gradients, strict=True)
        if value is not None and value.abs().sum() > 0
    }
    assert "roi_head.bbox_head.shared_fcs.0.weight" in touched
    assert not any("fc_cls" in name or "rpn_head" in name for name in touched)


@pytest.mark.parametrize(("classes", "length"), [(80, 256), (365, 210), (1203, 63)])
def test_queues_together_stay_within_157_megabytes(classes: int, length: int) -> None:
    context = dataclasses.replace(CONTEXT, num_classes=classes, iterations=180_000)
    refinement = configure(context, Options()).refinement
    assert refinement is not None
    assert refinement["queue"] == length
    assert classes * length * 1024 * 2 < 158e6
    assert refinement["warmup"] == 3600
