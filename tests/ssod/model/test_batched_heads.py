"""Assignment, sampling, losses and detections of all images at once, against mmdet's image by image.

Random choices are compared where there is none: the samplers take more boxes than there are.
"""

from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.ssod.component import component
from cissod_bench.ssod.model import roi_head as ours
from cissod_bench.ssod.model import sampling
from cissod_bench.ssod.model.box_coder import SyncFreeBoxCoder
from cissod_bench.ssod.model.box_head import ClassScoresBBoxHead
from cissod_bench.ssod.model.roi_head import BatchedRoIHead, box_loss, sample_rois
from cissod_bench.ssod.model.rpn_head import BatchedRPNHead
from cissod_bench.ssod.model.sampling import assign, overlaps, padded, random_order, sample
from tests.ssod.model.test_sync_free_ops import boxes
from tests.ssod.models import NUM_CLASSES, detector_config

ALL = 10**6
CPU = torch.device("cpu")


def found(count: int, seed: int) -> InstanceData:
    labels = torch.randint(NUM_CLASSES, (count,), generator=torch.Generator().manual_seed(seed))
    return InstanceData(bboxes=boxes(count, seed), labels=labels)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("cells", [10**9, 1], ids=["at once", "image by image"])
def test_boxes_are_assigned_as_by_mmdet(low_quality: bool, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "CELLS", cells)
    options = {"pos_iou_thr": 0.6, "neg_iou_thr": 0.3, "min_pos_iou": 0.2, "match_low_quality": low_quality}
    truth = [found(count, count) for count in (0, 1, 7, 40)]
    truth[2].bboxes[1] = truth[2].bboxes[0]  # two that claim the same boxes
    priors = [torch.cat([boxes(300, 4 + image), each.bboxes + 1.0]) for image, each in enumerate(truth)]
    usable = torch.rand(4, 340, generator=torch.Generator().manual_seed(0)) > 0.2
    for row, prior in zip(usable, priors, strict=True):
        row[len(prior) :] = False
    assigner = MaxIoUAssigner(**options)
    actual = assign(assigner, padded(priors, CPU), usable, padded([each.bboxes for each in truth], CPU))
    assert (actual[~usable] == -1).all()
    for image, (prior, each) in enumerate(zip(priors, truth, strict=True)):
        flags = usable[image, : len(prior)]
        expected = assigner.assign(InstanceData(priors=prior[flags]), each).gt_inds
        assert torch.equal(actual[image, : len(prior)][flags], expected)
    assert torch.equal(overlaps(truth[2].bboxes, priors[2]), assigner.iou_calculator(truth[2].bboxes, priors[2]))


@pytest.mark.parametrize("options", [{}, {"neg_pos_ub": 3}])
@pytest.mark.parametrize("number", [8, 60, 1000])
def test_as_many_boxes_are_sampled_as_by_mmdet(number: int, options: dict[str, Any]) -> None:
    sampler = RandomSampler(num=number, pos_fraction=0.25, add_gt_as_proposals=False, **options)
    assigned = torch.randint(-1, 4, (5, 90), generator=torch.Generator().manual_seed(0))
    assigned[1].clamp_(max=0)  # no object
    assigned[2].clamp_(min=1)  # no background
    assigned[3, 4:] = -1
    (positive, chosen), (negative, others) = sample(sampler, assigned)
    for image in range(5):
        priors, truth = InstanceData(priors=boxes(90, image)), found(3, image)
        theirs = AssignResult(3, assigned[image].clone(), torch.zeros(90), torch.zeros(90, dtype=torch.long))
        expected = sampler.sample(theirs, priors, truth)
        objects, background = positive[image][chosen[image]], negative[image][others[image]]
        assert len(set(objects.tolist())) == len(objects) == len(expected.pos_inds)
        assert len(set(background.tolist())) == len(background) == len(expected.neg_inds)
        assert (assigned[image][objects] > 0).all()
        assert (assigned[image][background] == 0).all()


def test_every_box_is_as_likely_as_any_other() -> None:
    sampler = RandomSampler(num=10, pos_fraction=0.0)
    assigned = torch.zeros(1, 40, dtype=torch.long)
    torch.manual_seed(0)
    times, counts = 4000, torch.zeros(40)
    pairs = torch.zeros(40, 40)
    for _ in range(times):
        _, (index, chosen) = sample(sampler, assigned)
        row = torch.zeros(40).index_fill(0, index[chosen], 1.0)
        counts += row
        pairs += row[:, None] * row
    # Each box a quarter of the times; each pair with the probability of a draw without replacement. Six sigma.
    off_diagonal = ~torch.eye(40, dtype=torch.bool)
    for share, probability in ((counts / times, 0.25), (pairs[off_diagonal] / times, 0.25 * 9 / 39)):
        assert (share - probability).abs().max() < 6 * (probability * (1 - probability) / times) ** 0.5


def test_random_orders_differ_by_row_and_seed_and_repeat() -> None:
    torch.manual_seed(1)
    one = random_order(3, 50_000, torch.device("cpu"))
    torch.manual_seed(1)
    assert torch.equal(one, random_order(3, 50_000, torch.device("cpu")))
    assert not torch.equal(one, random_order(3, 50_000, torch.device("cpu")))
    assert all(len(row.unique()) == 50_000 for row in one)
    assert one.min() >= 0
    assert one.max() < 2**32
    assert (one[0] != one[1]).float().mean() > 0.999
    # The published hash at a few numbers, computed with Python's own integers.
    torch.manual_seed(1)
    seed = int(torch.randint(2**32, (3, 1))[2])
    for column in (0, 1, 49_999):
        value = column ^ seed
        value = (value ^ value >> 16) * 0x7FEB352D % 2**32
        value = (value ^ value >> 15) * 0x846CA68B % 2**32
        assert int(one[2, column]) == value ^ value >> 16


def rpn_pair(num: int = ALL) -> tuple[Any, Any]:
    config = detector_config()
    train = {**config["train_cfg"]["rpn"]}
    train["sampler"] = {**train["sampler"], "num": num}
    torch.manual_seed(0)
    theirs = MODELS.build(ConfigDict(config["rpn_head"], train_cfg=train, test_cfg=config["test_cfg"]["rpn"]))
    mine = MODELS.build(ConfigDict(config["rpn_head"], train_cfg=train, test_cfg=config["test_cfg"]["rpn"]))
    mine.load_state_dict(theirs.state_dict())
    mine.bbox_coder = SyncFreeBoxCoder(theirs.bbox_coder.means, theirs.bbox_coder.stds)
    mine.__class__ = BatchedRPNHead
    assert type(theirs) is RPNHead
    return theirs, mine


def maps(seed: int, images: int = 4, levels: int = 4, channels: int = 48) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(32, 28), (16, 14), (8, 7), (4, 4), (2, 2)]
    return [torch.randn(images, channels, *sizes[level], generator=generator) for level in range(levels)]


METAS = [
    {"img_shape": shape, "pad_shape": pad, "scale_factor": (1.5, 1.25)}
    for shape, pad in [((128, 112), (128, 112)), ((90, 101), (96, 112)), ((60, 60), (64, 64)), ((128, 70), (128, 96))]
]


def test_rpn_losses_and_their_gradients_are_mmdets() -> None:
    theirs, mine = rpn_pair()
    truth = []
    for seed, count in enumerate((0, 1, 5, 12)):
        corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 60
        sides = torch.linspace(12, 60, 12)[:count, None].expand(-1, 2)
        truth.append(InstanceData(bboxes=torch.cat([corner, corner + sides], dim=1), labels=torch.zeros(count).long()))
    results = []
    for head in (theirs, mine):
        features = [level.requires_grad_() for level in maps(0)]
        losses = head.loss_by_feat(*head(tuple(features)), truth, METAS)
        total = {name: sum(value) if isinstance(value, list) else value for name, value in losses.items()}
        (total["loss_rpn_cls"] + 3 * total["loss_rpn_bbox"]).backward()
        results.append([*total.values(), *(level.grad for level in features)])
        assert total["loss_rpn_bbox"] > 0
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("changes", [{}, {"nms_pre": 50}, {"max_per_img": 3}, {"min_bbox_size": 12}])
def test_proposals_are_mmdets(changes: dict[str, Any]) -> None:
    theirs, mine = rpn_pair()
    for head in (theirs, mine):
        torch.nn.init.normal_(head.rpn_reg.weight, std=0.05, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(head.rpn_cls.weight, std=0.05, generator=torch.Generator().manual_seed(2))
    cfg = ConfigDict({**theirs.test_cfg, **changes})
    outputs = theirs(tuple(maps(3)))
    pairs = zip(
        theirs.predict_by_feat(*outputs, batch_img_metas=METAS, cfg=cfg),
        mine.predict_by_feat(*outputs, batch_img_metas=METAS, cfg=cfg),
        strict=True,
    )
    for expected, actual in pairs:
        assert len(expected)
        for name in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=0, atol=0)


def roi_pair(num: int = ALL, **head: Any) -> tuple[Any, Any]:
    config = detector_config()
    train = {**config["train_cfg"]["rcnn"]}
    train["sampler"] = {**train["sampler"], "num": num}
    settings = ConfigDict(config["roi_head"], train_cfg=train, test_cfg=config["test_cfg"]["rcnn"])
    settings.bbox_head.update(head)
    torch.manual_seed(0)
    theirs, mine = MODELS.build(settings), MODELS.build(settings)
    theirs.init_weights()
    torch.nn.init.normal_(theirs.bbox_head.fc_cls.weight, std=0.3)
    torch.nn.init.normal_(theirs.bbox_head.fc_reg.weight, std=0.3)
    mine.load_state_dict(theirs.state_dict())
    mine.bbox_head.bbox_coder = SyncFreeBoxCoder(theirs.bbox_head.bbox_coder.means, theirs.bbox_head.bbox_coder.stds)
    mine.__class__ = BatchedRoIHead
    assert type(theirs) is StandardRoIHead
    return theirs, mine


def proposals_of(truth: list[InstanceData]) -> list[Tensor]:
    """Boxes of all kinds, some close to the ground truth; none at all for the last image."""
    near = [torch.cat([boxes(60, 50 + image), each.bboxes + 2.0]) for image, each in enumerate(truth)]
    return [*near[:-1], near[-1][:0]]


@pytest.mark.parametrize("gt_as_proposals", [True, False])
@pytest.mark.parametrize("pos_weight", [-1, 2.0])
def test_rois_and_their_targets_are_mmdets(gt_as_proposals: bool, pos_weight: float) -> None:
    _, mine = roi_pair()
    mine.bbox_sampler.add_gt_as_proposals = gt_as_proposals
    mine.train_cfg.pos_weight = pos_weight
    truth = [found(count, seed) for seed, count in enumerate((0, 4, 9, 2))]
    truth[2].bboxes[1] = truth[2].bboxes[0]
    proposals = proposals_of(truth)
    actual = sample_rois(mine, proposals, truth)
    # The last image has no proposal: with mmdet's own sampling, as for any detector that ours does not fit.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "can_batch", lambda head: False)
        expected = sample_rois(mine, proposals, truth)
    assert actual.counts == expected.counts
    assert (expected.labels < NUM_CLASSES).any()
    for name in ("rois", "labels", "weights", "box_targets", "box_weights"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=0, atol=0, msg=name)
    first, second = actual.split(3)
    assert first.counts + second.counts == actual.counts
    assert torch.equal(torch.cat([first.labels, second.labels]), actual.labels)
    assert (second.rois[:, 0] == 0).all()


def test_no_box_at_all_gives_no_sample() -> None:
    _, mine = roi_pair()
    samples = sample_rois(mine, [torch.zeros(0, 4)] * 2, [found(0, 0), found(0, 1)])
    assert samples.counts == [0, 0]
    assert samples.rois.shape == (0, 5)


@pytest.mark.parametrize("agnostic", [True, False])
def test_roi_losses_and_their_gradients_are_mmdets(agnostic: bool) -> None:
    theirs, mine = roi_pair(reg_class_agnostic=agnostic)
    truth = [found(count, seed) for seed, count in enumerate((0, 4, 9, 2))]
    results = []
    for head in (theirs, mine):
        features = [level.requires_grad_() for level in maps(0)]
        samples = [DetDataSample(gt_instances=each) for each in truth]
        given = [InstanceData(bboxes=box) for box in proposals_of(truth)]
        losses = head.loss(tuple(features), given, samples)
        assert losses["loss_bbox"] > 0
        (losses["loss_cls"] + 3 * losses["loss_bbox"]).backward()
        assert set(losses) == {"loss_cls", "acc", "loss_bbox"}
        results.append([losses["loss_cls"], losses["acc"], losses["loss_bbox"], *(level.grad for level in features)])
    for expected, actual in zip(*results, strict=True):
        if expected is not None:
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_other_box_losses_are_mmdets_own() -> None:
    theirs, mine = roi_pair(loss_bbox={"type": "SmoothL1Loss", "beta": 0.5})
    truth = [found(4, 0)]
    samples = sample_rois(mine, proposals_of([*truth, found(1, 1)])[:1], truth)
    deltas = torch.randn(len(samples.rois), 4)
    targets = (samples.labels, samples.weights, samples.box_targets, samples.box_weights)
    expected = theirs.bbox_head.loss(None, deltas, samples.rois, *targets)["loss_bbox"]
    assert torch.equal(box_loss(mine.bbox_head, deltas, samples), expected)


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("changes", [{}, {"max_per_img": 2}, {"score_thr": 0.99999}])
def test_detections_are_mmdets(agnostic: bool, rescale: bool, changes: dict[str, Any]) -> None:
    theirs, mine = roi_pair(reg_class_agnostic=agnostic)
    features = tuple(maps(5))
    cfg = ConfigDict({**theirs.test_cfg, **changes})
    given = [InstanceData(bboxes=box) for box in proposals_of([found(5, seed) for seed in range(4)])]
    pairs = zip(
        theirs.predict_bbox(features, METAS, given, cfg, rescale),
        mine.predict_bbox(features, METAS, given, cfg, rescale),
        strict=True,
    )
    for index, (expected, actual) in enumerate(pairs):
        assert len(expected) or index == 3 or changes
        for name in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-5, atol=1e-4)
    raw = mine.predict_bbox(features, METAS, given, None)
    assert raw[0].scores.shape == (len(given[0]), NUM_CLASSES + 1), "without NMS it is mmdet's own"
    assert len(bbox2roi([each.bboxes for each in given])) == sum(map(len, raw))


def test_scores_of_all_classes_follow_the_detections_as_the_head_itself_has_them() -> None:
    theirs, mine = roi_pair(**component(ClassScoresBBoxHead))
    given = [InstanceData(bboxes=box) for box in proposals_of([found(5, 0), found(3, 1), found(1, 2)])[:2]]
    features = tuple(level[:2] for level in maps(5))
    pairs = zip(
        theirs.predict_bbox(features, METAS[:2], given, theirs.test_cfg),
        mine.predict_bbox(features, METAS[:2], given, mine.test_cfg),
        strict=True,
    )
    for expected, actual in pairs:
        torch.testing.assert_close(actual.class_scores, expected.class_scores, rtol=1e-5, atol=1e-6)
        if len(actual):
            best = actual.class_scores.gather(1, actual.labels[:, None])[:, 0]
            torch.testing.assert_close(actual.scores, best)
