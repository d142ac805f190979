"""What a method is: the components that it puts into the teacher-student framework.

A method's file holds its options, its modules and one function `configure`; the registry holds a line with its name.
This file and the registry import neither torch nor mmdet, so that the command line lists methods at once.
"""

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.errors import UserError, blaming, unknown_name
from cissod_bench.ssod.component import component


@dataclass(frozen=True)
class Context:
    """What a method may know of the run that it is part of.

    Attributes:
        num_classes: number of foreground classes n.
        iterations: length of the run.
        burn_in: first iterations on labelled images alone; there are no pseudo labels before.
        unsup_weight: factor lambda_u of the losses on pseudo labels.
        theta: threshold of pseudo labels that goes with the detector preset (paper: 0.9).
        rfs_threshold: the task's oversampling threshold t of repeat factor sampling.
        crs_gamma: the task's range coefficient of class-rebalancing sampling.
        labeled_images: number of images in D_l.
        labeled_boxes: for each class the number of boxes in D_l.
        minority: labels of the minority classes, ascending: group min, or c and r where groups go by frequency.
        minority_images: file with the ids of D_s, one a line (`splits/folder.py`); empty where a split has no D_s.
    """

    num_classes: int
    iterations: int
    burn_in: int
    unsup_weight: float
    theta: float
    rfs_threshold: float
    crs_gamma: float
    labeled_images: int
    labeled_boxes: tuple[int, ...]
    minority: tuple[int, ...]
    minority_images: Path


def fixed_threshold(context: Context, theta: float | None) -> dict[str, Any]:
    """Configuration of one threshold for all classes: the method's, or the detector preset's."""
    from cissod_bench.ssod.thresholds import FixedThreshold  # imports torch

    return component(FixedThreshold, value=context.theta if theta is None else theta)


def repeat_threshold(context: Context, threshold: float | None) -> float:
    """Oversampling threshold t of repeat factor sampling on D_l: the method's, or the task's."""
    return context.rfs_threshold if threshold is None else threshold


@dataclass(frozen=True)
class MethodConfig:
    """What a method puts into the framework; the defaults are Soft Teacher. `component` writes a configuration.

    Attributes:
        loss_cls: configuration of the RoI classification loss.
        bbox_head: what the method changes in the configuration of the RoI head's `bbox_head`.
        detector: what it changes elsewhere in the detector's configuration, nested like it.
        threshold: configuration of the threshold policy of pseudo labels (`ssod/thresholds.py`), None for one threshold
            for all classes, the detector preset's.
        refinement: configuration of a refinement of pseudo labels (`ssod/refinement.py`), None for none.
        labeled_repeat: oversampling threshold t of repeat factor sampling on D_l, None for uniform sampling.
        unlabeled: whether the run trains on D_u too. Otherwise no image of D_u is loaded, and a step has labelled
            images alone, as many as with D_u.
        all_labels: whether the labelled images are all training images with all their labels, instead of D_l. Only a
            reference may have them: it is not semi-supervised.
        hooks: configurations of mmengine hooks that run around the iterations.
    """

    loss_cls: Mapping[str, Any] = field(default_factory=lambda: {"type": "CrossEntropyLoss", "loss_weight": 1.0})
    bbox_head: Mapping[str, Any] = field(default_factory=dict)
    detector: Mapping[str, Any] = field(default_factory=dict)
    threshold: Mapping[str, Any] | None = None
    refinement: Mapping[str, Any] | None = None
    labeled_repeat: float | None = None
    unlabeled: bool = True
    all_labels: bool = False
    hooks: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Method:
    """A line of the registry.

    Attributes:
        name: what the command line calls it.
        family: where it comes from: supervised (no unlabelled image), reference (all
            labels), SSOD, LTOD (long-tailed detection), FSOD
            (few-shot), CI-SSL (classification), CI-SSOD (the task itself).
        title: one line for lists and tables.
        citation: the paper.
        module: the file, which defines `Options` (a frozen msgspec.Struct) and
            `configure(context, options) -> MethodConfig`; filled in for a user's own method.
        paper_name: its row in the paper's tables, None where the paper has none.
        version: of the method's results. Raise it with every change that moves them, of the framework as well, and add
            a line to the history in `registry.py`: runs of two versions are never averaged.
        file: the source file of a user's own method (`user.py`), None for the methods of this package.
        digest: SHA-256 of that file.
        package: name and version of the installed package that the file belongs to, None for a file by itself.
    """

    name: str
    family: str
    title: str
    citation: str
    module: str = ""
    paper_name: str | None = None
    version: int = 1
    file: Path | None = None
    digest: str | None = None
    package: str | None = None

    def options(self, given: Mapping[str, Any]) -> Any:
        """The method's options with the given ones set.

        Raises:
            UserError: an option that the method lacks, or a value of the wrong type.
        """
        options_type = importlib.import_module(self.module).Options
        names = [item.name for item in msgspec.structs.fields(options_type)]
        for name in given:
            if name not in names:
                raise unknown_name(f"option of method {self.name!r}:", name, names)
        try:
            return msgspec.convert(dict(given), options_type, strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"Option of method {self.name!r}: {error}.") from error

    def configure(self, context: Context, options: Any) -> MethodConfig:
        """What the method puts into the framework in one run; its threshold policy is filled in.

        Raises:
            UserError: a user's own method raises an exception, or returns something else than a `MethodConfig`.
        """
        module = importlib.import_module(self.module)
        with contextlib.nullcontext() if self.file is None else blaming(self.file):
            config: MethodConfig = module.configure(context, options)
        if not isinstance(config, MethodConfig):
            raise UserError(
                f"{self.file or self.module}: configure() returned {type(config).__name__}, not a MethodConfig."
            )
        return config if config.threshold else replace(config, threshold=fixed_threshold(context, None))
