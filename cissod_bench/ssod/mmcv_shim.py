"""mmcv without a compiler: a stand-in for the compiled extension `mmcv._ext` that mmdet's imports ask for.

Nobody publishes compiled mmcv operators for current versions of PyTorch, and building them takes a compiler and most of
an hour. Faster R-CNN needs two of them, and torchvision has both: non-maximum suppression, provided here, and
RoIAlign, which mmcv itself takes from torchvision if the configuration says `use_torchvision=True`. Every other
operator raises an error when called that says what is missing. A compiled mmcv takes precedence: the finder is last on
the import path, so it is used only if the real extension does not exist.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

_EXTENSION = "mmcv._ext"


class MissingOperatorError(RuntimeError):
    """An operator of mmcv's compiled extension was called where mmcv was installed without it."""


def nms(bboxes: "Tensor", scores: "Tensor", iou_threshold: float, offset: int = 0) -> "Tensor":
    """Non-maximum suppression with the signature of mmcv's compiled operator, computed by torchvision.

    Args:
        bboxes: (N, 4) boxes as x1, y1, x2, y2 in pixels.
        scores: (N,) scores.
        iou_threshold: boxes that overlap a better one by more than this are dropped.
        offset: 1 if a box of one pixel has x1 == x2 (width x2 - x1 + 1), else 0.

    Returns:
        (K,) int64 indices of the boxes kept, best first.
    """
    import torchvision

    if offset:
        bboxes = bboxes + bboxes.new_tensor([0.0, 0.0, offset, offset])
    kept: Tensor = torchvision.ops.nms(bboxes, scores, iou_threshold)
    return kept


def _missing(name: str) -> Callable[..., Any]:
    hint = " Set `use_torchvision=True` in the RoIAlign layer's configuration." if name.startswith("roi_align") else ""

    def operator(*_args: Any, **_kwargs: Any) -> Any:
        raise MissingOperatorError(
            f"The operator mmcv.ops.{name} needs the compiled extension of mmcv, which this installation lacks "
            f"(cissod-bench provides nms and RoIAlign through torchvision).{hint} "
            "For other operators build mmcv from source with MMCV_WITH_OPS=1."
        )

    return operator


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the stand-in for `mmcv._ext`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == _EXTENSION else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, "Stand-in for mmcv's compiled operators (cissod_bench.ssod.mmcv_shim).")

    def exec_module(self, module: ModuleType) -> None:
        def lookup(name: str) -> Callable[..., Any]:
            if name.startswith("__"):
                raise AttributeError(name)
            return nms if name == "nms" else _missing(name)

        module.__getattr__ = lookup  # type: ignore[method-assign]  # PEP 562


def install() -> None:
    """Make `import mmcv.ops` work where mmcv has no compiled extension. Calling it again changes nothing."""
    if not any(isinstance(finder, _StandIn) for finder in sys.meta_path):
        sys.meta_path.append(_StandIn())


def backend() -> Literal["mmcv", "torchvision"]:
    """The source of the detection operators: a compiled mmcv, or torchvision through the stand-in."""
    install()
    spec = importlib.util.find_spec(_EXTENSION)
    return "torchvision" if spec is None or isinstance(spec.loader, _StandIn) else "mmcv"
