"""A user's own detector: a file with mmdet's `model` and, if wanted, a `recipe`.

The file is read as data (`literals.py`). What it leaves out is as in the paper: a `model` that only names another
backbone and its channels is enough, and so is the whole `model` of one of mmdet's configurations. It has to be a
two-stage detector, an RPN and one RoI head with a fully connected box head: the parts that the framework and the
methods work in.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cissod_bench.errors import UserError
from cissod_bench.io import canonical_json, sha256_text
from cissod_bench.training.recipes.detector import PAPER, SOFT_TEACHER, Config, Detector, DetectorFile
from cissod_bench.training.recipes.faster_rcnn import RESNET_CHANNELS, RGB, faster_rcnn, resnet
from cissod_bench.training.recipes.literals import read_settings

Positive = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Flip = Literal["horizontal", "vertical", "diagonal"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Image sizes and optimisation, see `Detector`; the paper's by default."""

    test_scale: tuple[Count, Count] = PAPER["test_scale"]
    train_shortest: tuple[Count, Count] = PAPER["train_shortest"]
    flips: tuple[Flip, ...] = PAPER["flips"]
    geometric: bool = PAPER["geometric"]
    padding: Count = PAPER["padding"]
    per_gpu: tuple[Count, Count] = PAPER["per_gpu"]
    test_batch: Count = PAPER["test_batch"]
    reference_gpus: Count = PAPER["reference_gpus"]
    optimizer: dict[str, Any] = msgspec.field(default_factory=lambda: dict(PAPER["optimizer"]))
    clip: Positive | None = PAPER["clip"]
    warmup: NotNegative = PAPER["warmup"]
    ema_momentum: Fraction = PAPER["ema_momentum"]
    burn_in: Fraction = PAPER["burn_in"]
    theta: Fraction = PAPER["theta"]
    semi: dict[str, Any] = {}


HEADS = {"Shared2FCBBoxHead": (0, 2), "Shared4Conv1FCBBoxHead": (4, 1), "ConvFCBBoxHead": None}
"""Box heads that the framework serves -> shared convolutions and fully connected layers."""
_ONE_OF = {
    "": ("FasterRCNN", "TwoStageDetector"),
    "rpn_head": ("RPNHead",),
    "roi_head": ("StandardRoIHead",),
    "roi_head.bbox_roi_extractor": ("SingleRoIExtractor",),
    "roi_head.bbox_head": tuple(HEADS),
    "data_preprocessor": ("DetDataPreprocessor",),
}
"""Part of the model -> types that the framework works in."""
_WITHOUT = ("roi_head.mask_head", "roi_head.mask_roi_extractor", "roi_head.shared_head")


def detector_from_file(file: Path) -> Detector:
    """The detector that a file describes.

    Raises:
        UserError: the file cannot be read, has no `model`, or describes what the framework cannot serve; the message
            has the reason and, for what is not Python's, the line.
    """
    source = _read(file)
    found = read_settings(file, source)
    if not isinstance(found.get("model"), dict):
        raise UserError(f"{file}: no model = dict(...). Give mmdet's configuration of a two-stage detector.")
    given = found["model"]
    recipe = _recipe(file, found.get("recipe", {}))
    paper = faster_rcnn(0, 0, backbone=resnet(50, "pytorch"), channels=RESNET_CHANNELS, preprocessor=RGB)
    model = _merged(paper, given)
    _check(file, model)
    settings = {name: getattr(recipe, name) for name in Recipe.__struct_fields__}
    content = canonical_json({"model": model, "recipe": msgspec.to_builtins(recipe)})

    def configure(num_classes: int, max_detections: int) -> Config:
        config = copy.deepcopy(model)
        config["backbone"].pop("init_cfg", None)
        config["roi_head"]["bbox_head"]["num_classes"] = num_classes
        config["test_cfg"]["rcnn"]["max_per_img"] = max_detections
        return config

    return Detector(
        name=file.stem,
        title=f"the detector in {file}",
        model=configure,
        step_seconds={},
        backbone_file=f"weights for the backbone of {file}",
        file=DetectorFile(file, source, sha256_text(content), _needed_weights(model["backbone"])),
        **{**settings, "semi": {**SOFT_TEACHER, **recipe.semi}},
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}). Give a detector preset or its file.") from error


def _recipe(file: Path, given: Any) -> Recipe:
    try:
        recipe = msgspec.convert(given, Recipe)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: recipe: {error}.") from None
    unknown = sorted(recipe.semi.keys() - SOFT_TEACHER.keys())
    if unknown:
        raise UserError(f"{file}: recipe: semi has no {unknown[0]!r}; it has {', '.join(SOFT_TEACHER)}.")
    if not {"type", "lr"} <= recipe.optimizer.keys():
        raise UserError(f"{file}: recipe: optimizer needs a type and an lr.")
    low, high = recipe.train_shortest
    if low > high:
        raise UserError(f"{file}: recipe: train_shortest is (smallest, largest); {low} is above {high}.")
    if recipe.test_scale[0] < recipe.test_scale[1]:
        raise UserError(f"{file}: recipe: test_scale is (longest, shortest) side; give the larger one first.")
    return recipe


def _merged(paper: Mapping[str, Any], given: Mapping[str, Any]) -> Config:
    """The paper's configuration with a file's put into it: a part of another type replaces the paper's, as does one
    with mmengine's `_delete_`; of a part of the same type only what is given changes."""
    result: Config = dict(copy.deepcopy(paper))
    for name, value in given.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same = value.get("type", old.get("type")) == old.get("type") and not value.get("_delete_", False)
            replaced = {key: inner for key, inner in value.items() if key != "_delete_"}
            result[name] = _merged(old, value) if same else _fitting(name, replaced, old)
        else:
            result[name] = copy.deepcopy(value)
    return result


def _fitting(name: str, new: Config, old: Mapping[str, Any]) -> Config:
    """A part of another type than the paper's; a box head keeps the paper's coder and losses where it names none."""
    if name == "bbox_head" and new.get("type") in HEADS:
        kept = ("in_channels", "fc_out_channels", "roi_feat_size", "bbox_coder", "reg_class_agnostic", "loss_cls",
                "loss_bbox")  # fmt: skip
        return copy.deepcopy({key: old[key] for key in kept} | new)
    return copy.deepcopy(new)


def _check(file: Path, model: Config) -> None:
    """Refuse what the framework cannot serve, and bring what it can into its own terms."""
    for path, types in _ONE_OF.items():
        part = _part(model, path)
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in types:
            where = f"model.{path}" if path else "model"
            raise UserError(
                f"{file}: {where} is {kind or 'no part with a type'}: the framework serves two-stage detectors with an "
                f"RPN and one fully connected RoI head, so this must be {' or '.join(types)}."
            )
    for path in _WITHOUT:
        if _part(model, path) is not None:
            raise UserError(f"{file}: model.{path}: the framework trains boxes alone. Leave it out.")
    extractor, head = model["roi_head"]["bbox_roi_extractor"], model["roi_head"]["bbox_head"]
    layer = extractor.get("roi_layer")
    if not isinstance(layer, dict) or layer.get("type") != "RoIAlign":
        raise UserError(f"{file}: model.roi_head.bbox_roi_extractor.roi_layer must be a RoIAlign.")
    layer["use_torchvision"] = True  # mmcv's needs compiled operators
    layers = HEADS[head["type"]]
    if layers is not None and layers[0]:
        head |= {"type": "ConvFCBBoxHead", "num_shared_convs": layers[0], "num_shared_fcs": layers[1]}
        head.setdefault("conv_out_channels", 256)


def _part(model: Mapping[str, Any], path: str) -> Any:
    part: Any = model
    for name in filter(None, path.split(".")):
        part = part.get(name) if isinstance(part, Mapping) else None
    return part


def _needed_weights(backbone: Mapping[str, Any]) -> str | None:
    """The weights that a configuration starts its backbone from, or those that its frozen parts belong to."""
    start = backbone.get("init_cfg")
    if isinstance(start, Mapping) and start.get("checkpoint"):
        return str(start["checkpoint"])
    frozen = backbone.get("frozen_stages", -1) >= 0 or backbone.get("norm_eval", False)
    return "those that its frozen stages and statistics were trained with" if frozen else None
