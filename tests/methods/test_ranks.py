"""Two ranks keep one state: that of a single process which sees the batches of both.

Once for the parts by themselves, with what does not fit into a detector's batch (a rank without RoIs, another number of
boxes on each); once for every method of the registry in the framework.
"""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import distributed, multiprocessing

from cissod_bench.baselines import daso
from cissod_bench.baselines.daso import SemanticBlend
from cissod_bench.baselines.eqlv2 import EqualizationLossV2
from cissod_bench.baselines.seesaw import CountingSeesawLoss
from cissod_bench.methods.rank_threshold import RankThreshold
from tests.methods.plain import SEMI_SUPERVISED, config_of, teacher_student_of
from tests.methods.samples import Rois, feed, steps
from tests.ssod.models import Batch, batch

N, CHANNELS = 5, 8
State = dict[str, dict[str, torch.Tensor]]


def part(call: Rois, ranks: list[int]) -> Rois | None:
    """The RoIs that fall on some of two ranks; the second gets none of the pseudo-labelled ones."""
    size = len(call.labels)
    owner = np.arange(size) % 2 if call.name == "sup" else np.zeros(size)
    mine = np.isin(owner, ranks)
    return Rois(call.name, call.logits[mine], call.labels[mine], call.weights[mine]) if mine.any() else None


def detections(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Three images' detections, best first."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    sizes = [3, rank, 5]
    scores = [torch.rand(size, generator=generator).sort(descending=True).values for size in sizes]
    return torch.randint(0, N, (sum(sizes),), generator=generator), torch.cat(scores), sizes


def labelled(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of ground-truth boxes, a different number on each rank, once none at all."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    size = 0 if (step, rank) == (2, 1) else 4 + 3 * rank
    return torch.rand(size, CHANNELS, generator=generator), torch.randint(0, N, (size,), generator=generator)


def run(ranks: list[int]) -> State:
    """All modules through several iterations on the batches of some ranks."""
    eqlv2, seesaw = EqualizationLossV2(N), CountingSeesawLoss(N)
    for loss, channels in ((eqlv2, N + 1), (seesaw, N + 2)):
        for iteration, calls in enumerate(steps(N, channels)):
            for call in calls:
                mine = part(call, ranks)
                if mine is not None:
                    feed(loss, mine)
            loss.end_iteration(iteration)
    ranked = RankThreshold(N, [1.5] * N, window=10, interval=1)
    blend = SemanticBlend(N, CHANNELS, queue=3, window=2)
    for step in range(5):
        found = [detections(step, rank) for rank in ranks]
        ranked.update(
            torch.cat([each[0] for each in found]),
            torch.cat([each[1] for each in found]),
            [size for each in found for size in each[2]],
        )
        ranked.thresholds(step, None)
        boxes = [labelled(step, rank) for rank in ranks]
        pseudo = [InstanceData(bboxes=torch.zeros(len(labels), 4), labels=labels) for _, labels in boxes]
        original, daso.embed = daso.embed, lambda *_, rows=boxes: torch.cat([features for features, _ in rows])
        try:
            blend.observe(_Detector(), torch.zeros(1), pseudo)
        finally:
            daso.embed = original
        blend.note(torch.cat([each[0] for each in found]), step)
    modules = {"eqlv2": eqlv2, "seesaw": seesaw, "labelmatch": ranked, "daso": blend}
    return {name: module.state_dict() for name, module in modules.items()}


def part_of_batch(whole: Batch, ranks: list[int]) -> Batch:
    """The images of some of two ranks, half of them each."""
    inputs, samples = whole
    number = len(samples["sup"])
    chosen = [index for index in range(number) if 2 * index // number in ranks]
    mine = {name: [found[index] for index in chosen] for name, found in samples.items()}
    return {name: images[chosen] for name, images in inputs.items()}, mine


def run_frames(ranks: list[int]) -> State:
    """Every method's state after two iterations of the framework without a change of weights.

    All candidates are sampled as RoIs: which ones a sampler draws at random would differ between one process and two.
    """
    states = {}
    for name, method in SEMI_SUPERVISED.items():
        # Thresholds that an untrained detector passes; DASO's and the ranks' windows end within the two iterations.
        wanted = {"theta": 0.5 if name == "gbs" else 0.08, "warmup": 0.0, "window": 2, "gbr_warmup": 0.0}
        wanted |= {"interval": 1, "threshold_warmup": 0.0}
        known = {field.name for field in msgspec.structs.fields(type(method.options({})))}
        parts = config_of(method, **{key: value for key, value in wanted.items() if key in known})
        everything = {"pseudo_label_initial_score_thr": 0.06, "rpn_pseudo_thr": 0.07, "reg_pseudo_thr": 0.5}
        model = teacher_student_of(parts, semi=everything)
        for detector in (model.student, model.teacher):
            detector.train_cfg.rcnn.sampler.num = 10_000
            detector.roi_head.bbox_sampler.num = 10_000
            if detector.roi_head.bbox_head.fc_cls.bias is not None:
                torch.nn.init.zeros_(detector.roi_head.bbox_head.fc_cls.bias)
        for iteration in range(2):
            model.iteration = iteration
            torch.manual_seed(iteration)
            model.loss(*part_of_batch(batch(iteration, images=4), ranks))
        kept = {"threshold": model.threshold, "refinement": model.refinement, "loss": model.loss_cls}
        states[name] = {
            f"{where}.{key}": value.detach().clone()
            for where, module in kept.items()
            if module is not None
            for key, value in module.state_dict().items()
        }
    return states


class _Detector:
    roi_head = None

    def extract_feat(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save((run([rank]), run_frames([rank])), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[State, State]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("method", ["eqlv2", "seesaw", "labelmatch", "daso"])
def test_both_ranks_have_the_state_of_one_process(method: str, two_ranks: list[tuple[State, State]]) -> None:
    single = run([0, 1])[method]
    for name, value in single.items():
        first, second = (state[method][name] for state, _ in two_ranks)
        assert torch.equal(first, second), f"{name} differs between ranks"
        torch.testing.assert_close(first, value, rtol=1e-5, atol=1e-6)
    assert any(value.float().abs().sum() > 0 for value in single.values())


@pytest.fixture(scope="module")
def one_process() -> State:
    return run_frames([0, 1])


@pytest.mark.parametrize("method", SEMI_SUPERVISED)
def test_every_method_has_one_state_on_both_ranks(
    method: str, two_ranks: list[tuple[State, State]], one_process: State
) -> None:
    first, second = (found[method] for _, found in two_ranks)
    assert first.keys() == second.keys() == one_process[method].keys()
    for name, value in one_process[method].items():
        assert torch.equal(first[name], second[name]), f"{name} differs between ranks"
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)
