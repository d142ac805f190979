"""Prototypical calibration (PCB of DeFRCN, Qiao et al., ICCV 2021, sec. 3.3): a second opinion on scores at test time.

An ImageNet classifier looks at the image and gives each box a feature. A class's prototype is the mean feature of its
labelled boxes, and the score s of a detection becomes alpha s + (1 - alpha) cos(feature, prototype). As in the authors'
code: the feature is the 1,000 logits of torchvision's ResNet-101, its last layer put on a 1 x 1 RoIAlign of the map
that it makes of the whole image in its original size; alpha is 0.5; only scores in (0.05, 1] of few-shot (here:
minority) classes change; detections keep their order. A class without a labelled box has no prototype and keeps its
scores. Scores may become negative; since the evaluation refuses such, they are written as 0, so that of these, the
last of all, the order is that of the scores before.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
import torchvision
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cissod_bench.errors import UserError
from cissod_bench.ssod.weights import check_weights, read_weights

ALPHA = 0.5
WINDOW = (0.05, 1.0)
STRIDE = 32
"""Pixels from one place of the classifier's last map to the next."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of torchvision's ImageNet models, RGB in [0, 1]."""
WANTED = "torchvision's ResNet-101 for ImageNet, last layer included"

Pixels = NDArray[np.uint8]


def check_imagenet_file(path: Path) -> dict[str, Tensor]:
    """Weights of the classifier.

    Raises:
        UserError: no such file, no checkpoint, or a weight is missing or of another shape.
    """
    option = f"-o pcb={path}"
    if not path.is_file():
        raise UserError(f"{option}: no such file. Give {WANTED}, or leave the option out.")
    with torch.device("meta"):
        expected = torchvision.models.resnet101(weights=None).state_dict()
    return check_weights(read_weights(path, option, WANTED), expected, option, WANTED)


def load_imagenet_network(path: Path) -> nn.Module:
    """torchvision's ResNet-101 with the weights of a file, for evaluation.

    Raises:
        UserError: see `check_imagenet_file`.
    """
    network: nn.Module = torchvision.models.resnet101(weights=None)
    network.load_state_dict(check_imagenet_file(path))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def embed(network: Any, image: Pixels, boxes: Tensor) -> Tensor:
    """(K, 1000) features of some boxes of an image.

    Args:
        network: ResNet-101.
        image: (H, W, 3) RGB.
        boxes: (K, 4) corners in pixels of the image, on the network's device.
    """
    pixels = torch.as_tensor(image, device=boxes.device).permute(2, 0, 1).float() / 255
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    hidden = ((pixels - mean) / std)[None]
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        hidden = getattr(network, name)(hidden)
    pooled = torchvision.ops.roi_align(hidden, [boxes.float()], output_size=1, spatial_scale=1 / STRIDE, aligned=True)
    features: Tensor = network.fc(pooled.flatten(1))
    return features


def calibrate(
    scores: Tensor, labels: Tensor, features: Tensor, prototypes: Tensor, calibrated: Tensor, alpha: float = ALPHA
) -> Tensor:
    """Scores blended with similarities to prototypes.

    Args:
        scores: (K,) scores.
        labels: (K,) int64 labels.
        features: (K, F) features.
        prototypes: (n, F) prototypes.
        calibrated: (n,) classes whose scores change.
        alpha: weight of the score.

    Returns:
        (K,) scores in the given order.
    """
    similar = functional.cosine_similarity(features, prototypes[labels], dim=1)
    concerned = (scores > WINDOW[0]) & (scores <= WINDOW[1]) & calibrated[labels]
    return torch.where(concerned, alpha * scores + (1 - alpha) * similar.to(scores.dtype), scores)


class Calibration:
    """Calibrates the detections of a detector.

    Args:
        network: see `load_imagenet_network`; moved to `device`.
        classes: labels of the minority classes.
        num_classes: number of foreground classes n.
        device: where to compute.

    Attributes:
        prototypes: (n, 1000) mean features.
        calibrated: (n,) minority classes that have a prototype.
    """

    def __init__(self, network: Any, classes: Sequence[int], num_classes: int, device: torch.device) -> None:
        self.network = network.to(device)
        self.device = device
        self.calibrated = torch.zeros(num_classes, dtype=torch.bool, device=device)
        self.calibrated[list(classes)] = True
        self.prototypes = torch.zeros(num_classes, network.fc.out_features, device=device)

    def learn(self, images: Iterable[tuple[Path, Tensor, Tensor]]) -> None:
        """Make prototypes of labelled images.

        Args:
            images: for each its file, (K, 4) corners in its pixels and (K,) labels.
        """
        sums, counts = torch.zeros_like(self.prototypes), torch.zeros_like(self.prototypes[:, 0])
        for path, boxes, labels in images:
            labels = labels.to(self.device)
            concerned = self.calibrated[labels]
            if concerned.any():
                features = embed(self.network, _read(path), boxes.to(self.device)[concerned])
                sums.index_add_(0, labels[concerned], features)
                counts += torch.bincount(labels[concerned], minlength=len(counts))
        self.prototypes = sums / counts.clamp(min=1)[:, None]
        self.calibrated &= counts > 0

    def apply(self, path: Path, found: InstanceData) -> None:
        """Change the scores of an image's detections, whose boxes are in pixels of the file."""
        if self.calibrated[found.labels].any():
            features = embed(self.network, _read(path), found.bboxes)
            scores = calibrate(found.scores, found.labels, features, self.prototypes, self.calibrated)
            found.scores = scores.clamp(min=0.0)


def _read(path: Path) -> Pixels:
    image: Pixels = mmcv.imread(str(path), channel_order="rgb")
    return image
