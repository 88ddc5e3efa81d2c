"""A normalisation that waits for its modulation and activation, to be computed with them at once."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from trilemma.errors import TrilemmaError
from trilemma.models.fusion.kinds import Kind
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import ACTIVATED, MODULATED

# Methods of tensors that change nothing where the dtype stays.
CASTS: Final = ("type", "to", "float")
_PRODUCTS: Final = frozenset((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__))
_SUMS: Final = frozenset((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__))


class Waiting:
    """A value that is computed when it is used; it behaves as a tensor."""

    _value: Tensor | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Tensor

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*tree_map(computed, args), **tree_map(computed, kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(computed(self), name)

    def _computed(self) -> Tensor:
        raise NotImplementedError


class Pending(Waiting):
    """act(norm(x)·factor + shift), as far as it is known; it behaves as a tensor.

    A multiplication, addition or activation is only noted; any other operation computes the value first.
    """

    def __init__(
        self,
        kind: Kind,
        norm: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        factor: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self._kind, self._norm, self._x, self._weight, self._bias = kind, norm, x, weight, bias
        self._factor, self._shift = factor, shift
        self._version = version_of(x)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.silu and type(args[0]) is cls and not kwargs.get("inplace") and len(args) == 1:
            return args[0]._activated()
        if not kwargs and len(args) == 2 and (func in _PRODUCTS or func in _SUMS):
            pending, other = args if type(args[0]) is cls else (args[1], args[0])
            return pending * other if func in _PRODUCTS else pending + other
        if func is torch.addcmul and not kwargs and len(args) == 3 and type(args[0]) is not cls:
            shift, first, second = args
            pending, factor = (first, second) if type(first) is cls else (second, first)
            if pending._takes(factor) and pending._takes(shift) and pending._factor is None:
                return pending._with(factor, shift)
        return super().__torch_function__(func, types, args, kwargs)

    def __mul__(self, other: Any) -> Any:
        if self._factor is None and self._takes(other):
            return self._with(other, None)
        return computed(self) * computed(other)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if self._factor is not None and self._shift is None and self._takes(other):
            return self._with(self._factor, other)
        return computed(self) + computed(other)

    __radd__ = __add__

    def __getattr__(self, name: str) -> Any:
        # Facts that are those of x.
        return getattr(self._x if name in ("device", "dtype", "shape", "ndim") else computed(self), name)

    def _activated(self) -> Tensor:
        return self._computed(silu=True) if self._kind.activates else F.silu(self._computed())

    def _with(self, factor: Tensor | None, shift: Tensor | None) -> Pending:
        """This one, modulated; what became of x since the normalisation counts."""
        modulated = Pending(self._kind, self._norm, self._x, self._weight, self._bias, factor, shift)
        modulated._version = self._version
        return modulated

    def _takes(self, other: Any) -> bool:
        """Returns whether `other` is one number a channel and sample, as the operator takes it."""
        x = self._x
        if (
            self._value is not None
            or type(other) is not Tensor
            or other.dtype != x.dtype
            or other.dim() != x.dim()
        ):
            return False
        batch, channels = x.shape[0], self._kind.channels(x)
        return (
            other.shape[0] == batch
            and other.shape[channels] == x.shape[channels]
            and other.numel() == batch * x.shape[channels]
            and other.device == x.device
        )

    def _computed(self, silu: bool = False) -> Tensor:
        if silu is False and self._value is not None:
            return self._value
        norm, x = self._norm, self._x
        if version_of(x) != self._version:
            raise TrilemmaError(
                "a fused network changed a tensor in place between its normalisation and its activation; "
                "call trilemma.unfuse(network) to run it as it is written"
            )
        kind, given = self._kind, (norm, x, self._weight, self._bias)
        factor, shift = self._factor, self._shift
        y: Tensor
        if why := kind.why_left(*given, factor, shift):
            note(norm, why=why)
            y = kind.own.forward(norm, x)
            y = y if factor is None else y * factor
            y = y if shift is None else y + shift
            y = F.silu(y) if silu else y
            self._value = self._value if silu else y
            return y
        if factor is not None or silu:
            whole = shift is not None or factor is None
            note(norm, kind.pattern + MODULATED * (shift is not None) + ACTIVATED * (silu and whole))
        if factor is None and not silu:
            note(norm, why="it turned out that nothing can be computed with it")
            y = kind.own.forward(norm, x)
        elif factor is None:
            y = kind.run(*given, silu=silu)
        elif shift is not None:
            y = kind.run(*given, (factor - 1).flatten(1), shift.flatten(1), silu=silu)
        else:
            y = kind.run(*given) * factor
            y = F.silu(y) if silu else y
        if not silu:
            self._value = y
        return y


def computed(value: Any) -> Any:
    """Computes and returns a waiting value; returns anything else as it is."""
    return value._computed() if issubclass(type(value), Waiting) else value


def version_of(x: Tensor) -> int | None:
    """Returns the number of writes into a tensor that autograd has counted; None where it counts none."""
    return None if x.is_inference() else x._version


def _cast(name: str) -> None:
    def method(self: Pending, *given: Any, **options: Any) -> Any:
        if given == (self._x.dtype,) and not options:
            return self
        return getattr(computed(self), name)(*given, **options)

    setattr(Pending, name, method)


for _name in ("type", "to"):
    _cast(_name)


def _delegate(name: str) -> None:
    def method(self: Waiting, *args: Any, **kwargs: Any) -> Any:
        return getattr(computed(self), name)(*map(computed, args), **kwargs)

    setattr(Waiting, name, method)


for _operation in (
    "add",
    "mul",
    "sub",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    _delegate(f"__{_operation}__")
    _delegate(f"__r{_operation}__")
    _delegate(f"__i{_operation}__")
for _operation in ("neg", "pos", "abs", "invert", "eq", "ne", "lt", "le", "gt", "ge", "bool"):
    _delegate(f"__{_operation}__")
for _operation in (
    "int",
    "float",
    "complex",
    "index",
    "len",
    "iter",
    "contains",
    "getitem",
    "setitem",
    "array",
):
    _delegate(f"__{_operation}__")
for _operation in ("repr", "str", "format", "hash", "reduce_ex", "deepcopy", "dlpack", "dlpack_device"):
    _delegate(f"__{_operation}__")
