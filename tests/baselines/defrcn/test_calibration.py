"""Prototypical calibration against loops in float64, and its file of weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn

from cissod_bench.baselines.defrcn.calibration import Calibration, calibrate, embed, load_imagenet_network
from cissod_bench.baselines.defrcn.defrcn import Options, configure
from cissod_bench.errors import UserError
from tests.methods.plain import CONTEXT


class Pooling(nn.Module):
    """Stands for the classifier: its map holds the mean colour of each 32 x 32 block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.AvgPool2d(32)
        for name in ("bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, nn.Identity())
        self.fc = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [1.0, 0, -1.0]]))


COLOURS = {"a": ((220, 30, 30), (20, 200, 40)), "b": ((210, 60, 20), (30, 40, 230)), "c": ((90, 180, 10), (70, 70, 70))}


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Images of 128 x 64 pixels: one colour on the left, another one on the right."""
    paths = {}
    for name, (left, right) in COLOURS.items():
        pixels = np.zeros((64, 128, 3), dtype=np.uint8)
        pixels[:, :64], pixels[:, 64:] = left, right
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(paths[name])
    return paths


LEFT, RIGHT = [16.0, 16.0, 48.0, 48.0], [80.0, 16.0, 112.0, 48.0]


def naive_feature(colour: tuple[int, int, int]) -> np.ndarray:
    red, green, blue = ((value / 255 - mean) / std for value, mean, std in zip(
        colour, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True))  # fmt: skip
    return np.array([red, 2 * green, red - blue])


def naive_cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / math.sqrt((one * one).sum() * (other * other).sum()))


def test_scores_equal_the_naive_loop() -> None:
    generator = np.random.default_rng(0)
    scores = np.array([1.0, 0.99, 0.4, 0.9, 0.05, 0.0500001, 0.01, 1.2, 0.6, 0.3])
    labels = np.array([0, 1, 2, 3, 1, 1, 1, 1, 0, 1])
    features, prototypes = generator.normal(size=(10, 7)), generator.normal(size=(4, 7))
    calibrated = [True, True, False, False]
    expected = []
    for score, label, feature in zip(scores, labels, features, strict=True):
        if calibrated[label] and 0.05 < score <= 1:
            score = 0.5 * score + 0.5 * naive_cosine(feature, prototypes[label])
        expected.append(score)
    actual = calibrate(*map(torch.tensor, (scores, labels, features, prototypes, calibrated)))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert min(expected) < 0, "scores may become negative"
    assert np.argsort(expected).tolist() != np.argsort(scores).tolist(), "and leave their order"
    assert (np.array(expected) == scores).tolist() == [False, False, True, True, True, False, True, True, False, False]


def test_prototypes_and_detections_equal_the_naive_loop(images: dict[str, Path]) -> None:
    calibration = Calibration(Pooling(), classes=[1, 3, 4], num_classes=5, device=torch.device("cpu"))
    labelled = [
        ("a", [LEFT, RIGHT], [1, 3]),
        ("b", [LEFT, RIGHT, RIGHT], [1, 0, 3]),
        ("c", [LEFT], [0]),
    ]
    calibration.learn((images[name], torch.tensor(boxes), torch.tensor(labels)) for name, boxes, labels in labelled)
    prototypes = {}
    for label in (1, 3):
        features = [
            naive_feature(COLOURS[name][box is RIGHT])
            for name, boxes, labels in labelled
            for box, of in zip(boxes, labels, strict=True)
            if of == label
        ]
        prototypes[label] = sum(features) / len(features)
        np.testing.assert_allclose(calibration.prototypes[label], prototypes[label], rtol=1e-4)
    assert calibration.calibrated.tolist() == [False, True, False, True, False], "no box, no prototype; no majority"

    found = InstanceData(
        bboxes=torch.tensor([LEFT, RIGHT, LEFT, RIGHT, LEFT, LEFT]),
        labels=torch.tensor([3, 1, 0, 4, 1, 3]),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.04, 0.06]),
    )
    calibration.apply(images["c"], found)
    left, right = (naive_feature(colour) for colour in COLOURS["c"])
    expected = [
        0.45 + 0.5 * naive_cosine(left, prototypes[3]),
        0.4 + 0.5 * naive_cosine(right, prototypes[1]),
        0.7,
        0.6,
        0.04,
        0.03 + 0.5 * naive_cosine(left, prototypes[3]),
    ]
    assert expected[-1] < 0
    expected[-1] = 0.0  # nothing below is written
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)
    assert found.labels.tolist() == [3, 1, 0, 4, 1, 3]


def test_an_image_without_detections_and_a_set_without_minority_boxes(images: dict[str, Path]) -> None:
    calibration = Calibration(Pooling(), classes=[1], num_classes=2, device=torch.device("cpu"))
    calibration.learn([(images["a"], torch.tensor([LEFT]), torch.tensor([0]))])
    assert not calibration.calibrated.any()
    for count in (0, 1):
        found = InstanceData(
            bboxes=torch.zeros(count, 4), labels=torch.ones(count, dtype=torch.long), scores=torch.full((count,), 0.7)
        )
        calibration.apply(images["a"], found)
        assert found.scores.tolist() == pytest.approx([0.7] * count)


def test_the_classifier_is_torchvisions_with_the_weights_of_the_file(tmp_path: Path) -> None:
    """One box over the whole of a 32-pixel image: RoIAlign and average pooling of the one place are the same."""
    reference = torchvision.models.resnet101(weights=None).eval()
    # Older files have no counters of batches; any file may hold more than is needed.
    state = {name: value for name, value in reference.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": {**state, "extra": torch.zeros(1)}}, tmp_path / "weights.pth")
    network = load_imagenet_network(tmp_path / "weights.pth")
    assert not any(module.training for module in network.modules())
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    prepared = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    prepared = torchvision.transforms.functional.normalize(prepared, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    actual = embed(network, image, torch.tensor([[0.0, 0, 32, 32]]))
    torch.testing.assert_close(actual, reference(prepared[None]), rtol=1e-4, atol=1e-5)
    assert embed(network, image, torch.zeros(0, 4)).shape == (0, 1000)


def state_of(depth: int) -> dict[str, Tensor]:
    """Weights of the right shapes that take no space in a file."""
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in state.items()}


def test_a_file_that_does_not_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    state = state_of(101)
    file = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"-o pcb=.*weights.pth: no such file. Give torchvision's ResNet-101"):
        configure(CONTEXT, Options(pcb=str(file)))
    file.write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"-o pcb=.*: neither a PyTorch checkpoint nor safetensors"):
        configure(CONTEXT, Options(pcb=str(file)))
    for wrong, message in (
        ({name: value for name, value in state.items() if not name.startswith("fc.")}, "fc.weight is missing. Give"),
        (state_of(50), "layer3.6.conv1.weight is missing"),
        ({**state, "conv1.weight": torch.zeros(1)}, r"conv1.weight has shape \(1,\) instead of \(64, 3, 7, 7\)"),
    ):
        torch.save(wrong, file)
        with pytest.raises(UserError, match=message):
            configure(CONTEXT, Options(pcb=str(file)))
    torch.save(state, file)
    (hook,) = configure(CONTEXT, Options(pcb=str(file))).hooks
    assert hook["pcb"] == str(file)
