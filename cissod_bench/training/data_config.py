"""Data sets, augmentation and loaders as mmengine configuration: Soft Teacher's recipe (Xu et al., sec. 4.2)."""

from pathlib import Path
from typing import Any

from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.damaged import LoadWholeImage
from cissod_bench.ssod.data.dataset import SeededConcatDataset
from cissod_bench.ssod.data.ignored_regions import ObjectsAlone
from cissod_bench.ssod.data.one_size import OneSizeBatches
from cissod_bench.ssod.data.sampler import SemiSampler
from cissod_bench.ssod.stopping import deaf_worker
from cissod_bench.training.recipes.detector import Detector

Config = dict[str, Any]

_COLOR = ("ColorTransform", "AutoContrast", "Equalize", "Sharpness", "Posterize", "Solarize", "Color", "Contrast",
          "Brightness")  # fmt: skip
_GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
_BRANCHES = ["sup", "unsup_teacher", "unsup_student"]
_VIEW_META = (
    "img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction", "homography_matrix",
)  # fmt: skip


def _one_of(names: tuple[str, ...]) -> Config:
    return {"type": "RandAugment", "aug_space": [[{"type": name}] for name in names], "aug_num": 1}


def train_scales(detector: Detector) -> list[tuple[int, int]]:
    """Long and short side that training images are resized to."""
    longest = detector.test_scale[0]
    return [(max(longest, shortest), shortest) for shortest in detector.train_shortest]


def resize_scales(detector: Detector) -> list[tuple[int, int]]:
    """All sizes that images are resized to, for training and for tests."""
    return [*train_scales(detector), detector.test_scale]


def _resize_and_flip(detector: Detector) -> list[Config]:
    scales = train_scales(detector)
    chance = 1 / (1 + len(detector.flips))
    flip = {"type": "RandomFlip", "prob": [chance] * len(detector.flips), "direction": list(detector.flips)}
    return [
        {"type": "RandomResize", "scale": scales, "keep_ratio": True},
        flip,
    ]


def labeled_pipeline(detector: Detector, *, alone: bool = False) -> list[Config]:
    """Weak geometry and one colour transform; `alone`: for batches without unlabelled images."""
    return [
        component(LoadWholeImage),
        {"type": "LoadAnnotations", "with_bbox": True},
        *_resize_and_flip(detector),
        _one_of(_COLOR),
        {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2), "keep_empty": False},
        {
            "type": "MultiBranch",
            "branch_field": ["sup"] if alone else _BRANCHES,
            "sup": {"type": "PackDetInputs"},
        },
    ]


def unlabeled_pipeline(detector: Detector) -> list[Config]:
    """A weakly augmented view for the teacher and a strongly augmented one for the student."""
    pack = {"type": "PackDetInputs", "meta_keys": _VIEW_META}
    strong = [_one_of(_COLOR), *([_one_of(_GEOMETRIC)] if detector.geometric else [])]
    return [
        component(LoadWholeImage),
        {"type": "LoadEmptyAnnotations"},
        {
            "type": "MultiBranch",
            "branch_field": _BRANCHES,
            "unsup_teacher": [*_resize_and_flip(detector), pack],
            "unsup_student": [
                *_resize_and_flip(detector),
                {"type": "RandomOrder", "transforms": strong},
                {"type": "RandomErasing", "n_patches": (1, 5), "ratio": (0, 0.2)},
                {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2), "keep_empty": False},
                pack,
            ],
        },
    ]


def test_pipeline(detector: Detector) -> list[Config]:
    """One resized image."""
    return [
        component(LoadWholeImage),
        {"type": "Resize", "scale": detector.test_scale, "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


def dataset(
    annotations: Path,
    images: Path,
    classes: tuple[str, ...],
    pipeline: list[Config],
    *,
    test: bool,
    ignored_regions: bool = False,
) -> Config:
    """A COCO-format data set; no image is left out, whether it has boxes or not.

    `ignored_regions`: crowd regions are not counted as objects, see `ssod/data/ignored_regions.py`.
    """
    return {
        **(component(ObjectsAlone) if ignored_regions else {"type": "CocoDataset"}),
        "ann_file": str(annotations),
        "data_prefix": {"img": str(images)},
        "metainfo": {"classes": classes},
        "filter_cfg": {"filter_empty_gt": False},
        "test_mode": test,
        "pipeline": pipeline,
    }


def loaders(labeled: Config, unlabeled: Config | None, validation: Config, **options: Any) -> Config:
    """Training and validation loaders.

    Args:
        labeled: data set of D_l.
        unlabeled: data set of D_u; None to train on D_l alone.
        validation: data set to evaluate on.
        options: `per_gpu`, `test_batch`, `seed`, `workers`, `pin_memory`, `labeled_repeat` and `damaged_limit`, see
            `Detector`, `SemiSampler` and `SeededConcatDataset`.
    """
    datasets = [labeled] if unlabeled is None else [labeled, unlabeled]
    per_gpu, workers = options["per_gpu"][: len(datasets)], options["workers"]
    processes = {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": options["pin_memory"],
        "worker_init_fn": component(deaf_worker),
    }
    validation_loader = {
        **processes,
        "batch_size": options["test_batch"],
        "drop_last": False,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "batch_sampler": component(OneSizeBatches),
        "dataset": validation,
    }
    return {
        "train_dataloader": {
            **processes,
            "batch_size": sum(per_gpu),
            "sampler": component(
                SemiSampler,
                batch_size=sum(per_gpu),
                source_ratio=per_gpu,
                seed=options["seed"],
                labeled_repeat=options["labeled_repeat"],
            ),
            "dataset": component(
                SeededConcatDataset,
                datasets=datasets,
                seed=options["seed"],
                damaged_limit=options["damaged_limit"],
            ),
        },
        "val_dataloader": validation_loader,
        "test_dataloader": validation_loader,
    }
