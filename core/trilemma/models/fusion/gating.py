"""Gated linear units of a fused network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma import ops
from trilemma.errors import TrilemmaError
from trilemma.models.fusion.pending import Waiting, computed, version_of
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import GEGLU, SWIGLU
from trilemma.models.fusion.swapping import KERNEL_DTYPES
from trilemma.ops.operator import is_transformed

PRODUCTS: Final = frozenset((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__))
# With fewer numbers PyTorch is as fast.
LEAST: Final = 1 << 18
# A projection in front of a gate widens its input by less: of a smaller one nothing need be watched.
_WIDENING: Final = 16
_FEW: Final = "it gates so few numbers that PyTorch is as fast"


def watching(owner: nn.Module, args: tuple[Any, ...]) -> AbstractContextManager[Any]:
    """Returns the context in which the activations of a module's forward wait, given the arguments of the forward."""
    if args and type(args[0]) is Tensor and args[0].numel() * _WIDENING < LEAST:
        note(owner, why=_FEW)
        return nullcontext()
    return Gates(owner)


class Gates(torch.overrides.TorchFunctionMode):
    """Has the activations in the forward of a module wait to be multiplied."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self._owner = owner
        self._computes = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (func is F.gelu or func is F.silu) and not self._computes and len(args) == 1:
            plain = kwargs.get("approximate", "none") == "none" and not kwargs.get("inplace")
            if plain and _may_be_half(args[0]):
                if why := _why_as_written(args[0]):
                    self.tell(why=why)
                else:
                    return Gate(self, args[0], func is F.silu)
        return func(*args, **kwargs)

    def activated(self, gate: Tensor, silu: bool) -> Tensor:
        """Returns the activation as torch computes it."""
        self._computes = True
        try:
            return F.silu(gate) if silu else F.gelu(gate)
        finally:
            self._computes = False

    def tell(self, pattern: str = "", why: str = "") -> None:
        """Writes down what ran in the module."""
        note(self._owner, pattern, why)


class Gate(Waiting):
    """act(g), of which only a product with the value beside g is computed at once."""

    def __init__(self, gates: Gates, gate: Tensor, silu: bool) -> None:
        self._gates, self._gate, self._silu = gates, gate, silu
        self._version = version_of(gate)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in PRODUCTS and not kwargs and len(args) == 2:
            gate, value = args if type(args[0]) is cls else (args[1], args[0])
            return gate * value
        return super().__torch_function__(func, types, args, kwargs)

    def __mul__(self, value: Any) -> Any:
        self._check()
        x = _whole(value, self._gate) if self._value is None else None
        if x is None:
            self._gates.tell(
                why="its value and gate are no halves of one tensor, or its activation is used again"
            )
            return computed(value) * self._computed()
        self._gates.tell(SWIGLU if self._silu else GEGLU)
        return ops.glu(x, silu=self._silu)

    __rmul__ = __mul__

    def _computed(self) -> Tensor:
        if self._value is None:
            self._check()
            self._value = self._gates.activated(self._gate, self._silu)
        return self._value

    def _check(self) -> None:
        if version_of(self._gate) != self._version:
            raise TrilemmaError(
                "a fused network changed a gate in place between its activation and its product; "
                "call trilemma.unfuse(network) to run it as it is written"
            )


def mentions_gates(kind: type[nn.Module]) -> bool:
    """Returns whether the forward of a class cuts a tensor into halves, as one that gates does."""
    return "chunk" in getattr(getattr(kind.forward, "__code__", None), "co_names", ())


def _may_be_half(gate: Any) -> bool:
    return type(gate) is Tensor and gate.dim() > 1 and gate.stride(-2) >= 2 * gate.shape[-1]


def _why_as_written(gate: Tensor) -> str:
    """Returns why a gate is activated as torch does it; "" where the operator may multiply it too."""
    if gate.numel() < LEAST:
        return _FEW
    if gate.device.type != "cpu" or gate.dtype not in KERNEL_DTYPES:
        return f"it gates {gate.dtype} on {gate.device}"
    if torch.is_autocast_enabled("cpu") or is_transformed(gate):
        return "autocast chooses its dtype, or it is differentiated forward"
    return ""


def _whole(value: Any, gate: Tensor) -> Tensor | None:
    """The tensor whose halves a value and its gate are; None where there is none."""
    if type(value) is not Tensor or value.shape != gate.shape or value.dtype != gate.dtype:
        return None
    channels = gate.shape[-1]
    strides = value.stride()
    beside = value.data_ptr() + channels * value.element_size() == gate.data_ptr()
    if not beside or gate.stride() != strides or strides[-1] != 1:
        return None
    if value.untyped_storage().data_ptr() != gate.untyped_storage().data_ptr():
        return None
    shape = (*gate.shape[:-1], 2 * channels)
    if not (torch.is_grad_enabled() and (value.requires_grad or gate.requires_grad)):
        return value.as_strided(shape, strides, value.storage_offset())
    base = value._base
    if base is None or base is not gate._base or base.numel() != 2 * gate.numel() or not base.is_contiguous():
        return None
    whole = base.view(shape)
    return whole if whole.stride() == strides and whole.data_ptr() == value.data_ptr() else None
