"""CReST's rates, picks, union and alignment against plain loops in float64 written from its formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from cissod_bench.baselines.crest.alignment import DistributionAlignment, alignment_exponent
from cissod_bench.baselines.crest.crest import Options, configure
from cissod_bench.baselines.crest.selection import keep_rates, pick, union_factors
from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.pseudo_boxes import PseudoBoxes
from cissod_bench.ssod.generations import generation_of, is_boundary
from tests.methods.plain import CONTEXT, teacher_student_of


def table(image: list[int], label: list[int]) -> PseudoBoxes:
    size = len(image)
    return PseudoBoxes(np.array(image, "i4"), np.array(label, "i2"), np.zeros((size, 4), "f4"), np.ones(size, "f4"))


def test_rates_of_the_original_in_any_order_of_classes() -> None:
    """[100, 50, 10, 1] -> (1/100, 10/100, 50/100, 1)^(1/3)."""
    expected = np.array([0.2154, 0.4642, 0.7937, 1.0])
    np.testing.assert_allclose(keep_rates(np.array([100, 50, 10, 1]), 1 / 3), expected, atol=5e-5)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(keep_rates(np.array([10, 100, 1, 50]), 1 / 3), expected[order], atol=5e-5)


def test_a_class_without_labelled_boxes_counts_as_one_with_one() -> None:
    assert keep_rates(np.array([8, 0, 2]), 1 / 3).tolist() == keep_rates(np.array([8, 1, 2]), 1 / 3).tolist()
    assert keep_rates(np.array([0, 0]), 0.5).tolist() == [1.0, 1.0]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(0, 2))
def test_rates_against_the_formula(counts: list[int], alpha: float) -> None:
    counts = [max(count, 1) for count in counts]
    ranked = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    descending = [counts[c] for c in ranked]
    expected = {c: (descending[len(counts) - 1 - rank] / descending[0]) ** alpha for rank, c in enumerate(ranked)}
    actual = keep_rates(np.array(counts), alpha)
    np.testing.assert_allclose(actual, [expected[c] for c in range(len(counts))], rtol=1e-12)
    assert actual[ranked[-1]] == 1.0, "the rarest class keeps all"


PREDICTIONS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.9, 0.91, 0.95, 0.99])), max_size=40)


@given(PREDICTIONS, st.lists(st.sampled_from([0.05, 0.2154, 0.5, 0.7937, 1.0]), min_size=5, max_size=5))
def test_picks_against_a_loop_over_classes(predictions: list[tuple[int, float]], rates: list[float]) -> None:
    kept = set()
    for label in range(5):
        ranked = sorted((-score, row) for row, (other, score) in enumerate(predictions) if other == label)
        kept |= {row for _, row in ranked[: int(rates[label] * len(ranked) + 1e-9)]}
    labels = np.array([label for label, _ in predictions], dtype=np.int16)
    scores = np.array([score for _, score in predictions], dtype=np.float32)
    assert set(np.flatnonzero(pick(labels, scores, np.array(rates))).tolist()) == kept


def test_the_number_kept_is_cut_off_but_not_by_rounding() -> None:
    rates = keep_rates(np.array([23**3, 13**3]), 1 / 3)
    assert rates[0] * 23 < 13, "13 / 23 of 23 is a rounding error below 13"
    assert [pick(np.zeros(size, dtype=int), np.ones(size), rates).sum() for size in (1, 2, 22, 23)] == [0, 1, 12, 13]


def test_no_prediction_gives_no_pick_and_uniform_labelled_images() -> None:
    assert pick(np.empty(0, "i2"), np.empty(0, "f4"), np.ones(3)).shape == (0,)
    assert union_factors([[0], [0, 1]], 3, table([], []), 0.0).tolist() == [1, 1, 0, 0, 0]


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=6),
    st.dictionaries(st.integers(0, 4), st.lists(st.integers(0, 3), min_size=1, max_size=3)),
    st.floats(0, 2),
)
def test_factors_over_the_union_are_those_of_the_definition(
    labeled: list[list[int]], joined: dict[int, list[int]], threshold: float
) -> None:
    """LVIS: r(c) = max(1, sqrt(t / f(c))), f(c) the fraction of the union's images that hold c, r(i) = max r(c)."""
    union = labeled + [joined[image] for image in sorted(joined)]
    rates = {}
    for label in range(4):
        fraction = sum(label in classes for classes in union) / len(union)
        rates[label] = max(1.0, (threshold / fraction) ** 0.5) if fraction else 1.0
    expected = [max([1.0, *(rates[label] for label in classes)]) for classes in labeled]
    expected += [max(rates[label] for label in joined[image]) if image in joined else 0.0 for image in range(5)]
    rows = [(image, label) for image in sorted(joined) for label in joined[image]]
    actual = union_factors(labeled, 5, table([row[0] for row in rows], [row[1] for row in rows]), threshold)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_the_exponent_of_alignment_falls_from_one_to_its_least() -> None:
    assert [alignment_exponent(g, 5, 0.5) for g in range(5)] == [1.0, 0.875, 0.75, 0.625, 0.5]
    assert alignment_exponent(0, 1, 0.5) == 1.0


def test_generations_are_equal_parts_of_what_follows_the_burn_in() -> None:
    assert [generation_of(done, 20, 120, 10) for done in (0, 20, 29, 30, 75, 119)] == [0, 0, 0, 1, 5, 9]
    assert [done for done in range(1, 121) if is_boundary(done, 20, 120, 10)] == list(range(30, 120, 10))
    assert [done for done in range(1, 5) if is_boundary(done, 2, 4, 10)] == [3], "more generations than iterations"


def detections(step: int, n: int, sizes: list[int]) -> list[InstanceData]:
    """Pseudo labels of a head that gives class scores; the class is the best one, as above a score of 0.5."""
    generator = torch.Generator().manual_seed(step)
    found = []
    for size in sizes:
        scores = (3 * torch.randn(size, n + 1, generator=generator)).softmax(1)
        best = scores[:, :-1].max(1)
        found.append(InstanceData(labels=best.indices, scores=best.values, class_scores=scores))
    return found


def test_alignment_against_a_loop_over_steps_that_keep_state() -> None:
    """Window of 3, batches without detections, a class without labelled boxes, all generations."""
    n, counts, window, generations, burn_in, iterations = 4, [30, 0, 9, 3], 3, 4, 2, 10
    module = DistributionAlignment(n, 8, tuple(counts), generations, burn_in, iterations, 0.5, window)
    target = [max(count, 1) / 43 for count in counts]
    recent = [[1 / n] * n for _ in range(window)]
    moved = 0
    for step in range(iterations):
        sizes = [[2, 3], [0, 0], [4, 0]][step % 3]
        found = detections(step, n, sizes)
        before = [each.clone() for each in found]
        module.refine(None, (), found, step)
        g = max(0, step - burn_in) * generations // (iterations - burn_in)
        exponent = 1 - g / (generations - 1) * 0.5
        mean = [sum(row[c] for row in recent) / window for c in range(n)]
        batch = [0.0] * n
        for each, old in zip(found, before, strict=True):
            for row in range(len(old)):
                p = old.class_scores[row].double().tolist()
                foreground = [value / (1 - p[n]) for value in p[:n]]
                raw = [foreground[c] * (target[c] ** exponent + 1e-6) / (mean[c] + 1e-6) for c in range(n)]
                aligned = [value / sum(raw) for value in raw]
                batch = [batch[c] + foreground[c] for c in range(n)]
                label = max(range(n), key=aligned.__getitem__)
                assert int(each.labels[row]) == label
                assert float(each.scores[row]) == pytest.approx(aligned[label] * (1 - p[n]), rel=1e-4)
                moved += label != int(old.labels[row])
        if sum(sizes):
            recent = [*recent[1:], [value / sum(sizes) for value in batch]]
    assert moved, "no label changed: nothing was tested"
    assert int(module.taken) == sum(step % 3 != 1 for step in range(iterations))


def test_equal_distributions_change_nothing() -> None:
    module = DistributionAlignment(4, 8, (5, 5, 5, 5), 10, 0, 100)
    found = detections(0, 4, [6])
    before = found[0].clone()
    module.refine(None, (), found, 0)
    assert torch.equal(found[0].labels, before.labels)
    torch.testing.assert_close(found[0].scores, before.scores)


def test_parts_by_option() -> None:
    plain = configure(CONTEXT, Options())
    assert plain.refinement is None, "plain CReST, as the paper cites it"
    (hook,) = plain.hooks
    assert (hook["theta"], hook["generations"], hook["labeled_repeat"]) == (0.9, 10, 0.1)
    assert hook["rates"] == keep_rates(np.array(CONTEXT.labeled_boxes), 1 / 3).tolist()
    assert configure(CONTEXT, Options(theta=0.7)).hooks[0]["theta"] == 0.7
    assert configure(CONTEXT, Options(theta=0.7, pick_threshold=0.5)).hooks[0]["theta"] == 0.5
    assert configure(CONTEXT, Options(align=True)).refinement["type"] == component(DistributionAlignment)["type"]


@pytest.mark.parametrize(("ignore", "expected"), [(False, 0), (True, -1)])
def test_what_lies_on_an_ignored_box_is_background_only_by_default(ignore: bool, expected: int) -> None:
    model: Any = teacher_student_of(configure(CONTEXT, Options(ignore_unkept=ignore)))
    priors = InstanceData(priors=torch.tensor([[0.0, 0, 30, 30], [50, 50, 90, 90], [52, 50, 90, 92]]))
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0, 30, 30]]), labels=torch.tensor([3]))
    ignored = InstanceData(bboxes=torch.tensor([[50.0, 50, 90, 90]]), labels=torch.tensor([1]))
    for assigner in (model.student.roi_head.bbox_assigner, model.student.rpn_head.assigner):
        assert assigner.assign(priors, truth, ignored).gt_inds.tolist() == [1, expected, expected]
