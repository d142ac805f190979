"""A fake device that counts what a host would launch, copy and wait for with a GPU, for tests and benchmarks.

Tensors of the device "fake" compute on the CPU but report another device, so code has to move its data as for a GPU,
and an operator on tensors of both sides is an error, as on a GPU. It counts operators that launch work (no views, no
allocations; an operator on a list of tensors counts once), copies, and what the host waits for: blocking copies, values
that are read back, and results whose size depends on values.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.structures.instance_data as instance_data
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "fake"
_SIZED_BY_VALUES = (
    "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount", "nms", "linalg_inv_ex", "equal",
)  # fmt: skip
_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class _Module(_DummyBackendModule):
    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class FakeTensor(torch.Tensor):
    """A tensor that claims to be on the device; `host` holds its values."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> "FakeTensor":
        """Wrap a tensor of the host."""
        wrapper: FakeTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        wrapper.host = inner
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise RuntimeError(f"{func} outside of counting()")

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return self.detach().clone()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:  # type: ignore[override]
        """Create on the host and copy, as for a GPU."""
        return torch.tensor(data, **{"dtype": self.dtype, **options, "device": "cpu"}).to(self.device)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Copy lists and host tensors in an index, as for a GPU."""
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(map(self._as_index, parts)))

    def _as_index(self, part: Any) -> Any:
        if isinstance(part, list):
            return self.new_tensor(part, dtype=torch.long)
        return part.to(self.device) if isinstance(part, torch.Tensor) and part.dim() > 0 else part

    def tolist(self) -> Any:
        """Copy to the host."""
        return self.cpu().tolist()


class Counts(TorchDispatchMode):
    """`launches` by operator, `copies` and `waits` by the line of code that caused them."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = func.overloadpacket.__name__, dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, torch.Tensor)]
        inner = {id(leaf.host): leaf for leaf in leaves if isinstance(leaf, FakeTensor)}
        source = target = bool(inner)
        if options.get("device") is not None:
            target = torch.device(options["device"]).type == NAME
            options["device"] = "cpu"
        if name == "copy_":
            source, target = (isinstance(leaf, FakeTensor) for leaf in (args[1], args[0]))
        if source != target and name in ("_to_copy", "copy_"):
            direction = "to the device" if target else "to the host"
            self.copies[f"{direction}, {_caller()}"] += 1
            if not options.get("non_blocking"):
                self.waits[f"copy {direction}, {_caller()}"] += 1
        elif source and any(leaf.dim() > 0 for leaf in leaves if not isinstance(leaf, FakeTensor)):
            raise RuntimeError(f"{func} on tensors of the device and of the host")
        elif source:
            if not (_is_view(func) or name in _ALLOCATIONS):
                self.launches[name] += 1
            masked = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
                index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            )
            if masked or name in _SIZED_BY_VALUES or name == "_local_scalar_dense":
                self.waits[f"{name}, {_caller()}"] += 1
        result = func(*tree_map(_inner, args), **tree_map(_inner, options))
        if not target:
            return result

        def outside(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return inner[id(value)] if id(value) in inner else FakeTensor(value)

        return tree_map(outside, result)


def _inner(value: Any) -> Any:
    return value.host if isinstance(value, FakeTensor) else value


def _is_view(func: Any) -> bool:
    return any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)


def _caller() -> str:
    """File and line, outside of PyTorch and this file, of the call of an operator."""
    frame = sys._getframe(2)
    while frame.f_back is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_lineno}"


@contextmanager
def counting() -> Iterator[Counts]:
    """Count within the block. First use it before the first backward pass of the process."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Module())
    known = instance_data.IndexType
    instance_data.IndexType = known | FakeTensor  # mmengine knows indices by the type of their tensor
    try:
        # Backward passes in this thread: one of the device's own may still hold Python objects when the process ends,
        # and a thread that asks for the interpreter then is unwound through C++, which aborts the process.
        with torch.autograd.set_multithreading_enabled(False), Counts() as counts:
            yield counts
    finally:
        instance_data.IndexType = known


def move(module: Any) -> None:
    """Move weights and buffers of a module to the device, inside of `counting`."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                moved = FakeTensor(weight.data)
                part._parameters[name] = nn.Parameter(moved, requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = FakeTensor(buffer)
        if hasattr(part, "_device"):  # mmengine's data preprocessors
            part._device = torch.device(NAME, 0)
