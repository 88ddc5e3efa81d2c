"""Swaps the class of a module for a subclass of it whose forward calls the operators."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

KERNEL_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
# Attributes that a copy makes for itself: transformed filters, and reports to be filled in.
_NOT_COPIED: Final = ("_trilemma_kept", "_trilemma_reports")


@dataclass(frozen=True)
class Swap:
    """One swap of a class.

    Attributes:
        own: the class that modules of it had before any swap.
        before: the class that was put in.
        inner: the class just before this swap; not `own` where that was swapped already.
    """

    own: type[nn.Module]
    before: type[nn.Module]
    inner: type[nn.Module]


class Swapped(nn.Module):
    """Marks a module whose class was swapped, and makes its copies and pickles swapped too.

    The module stays the same object with the same attributes, so that the next call sees any later change (a child
    replaced, weights assigned, hooks, a shallow or deep copy, a pickle). All that fusing adds has a name that begins
    with `_trilemma`: any other may be that of a child.
    """

    _trilemma_swap: Swap

    def __reduce_ex__(self, protocol: Any) -> Any:
        function, arguments, state, *rest = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        if function is not copyreg.__newobj__ or "_trilemma_swap" not in vars(arguments[0]):  # type: ignore[attr-defined]
            return function, arguments, state, *rest
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in _NOT_COPIED}
        own = arguments[0]._trilemma_swap.own
        return _renewed, (own, _lasting(arguments[0]), *arguments[1:]), state, *rest


def own_class(module: nn.Module) -> type[nn.Module]:
    """Returns the class of a module as it is without swapping; also of one that is not swapped any more."""
    kind = type(module)
    return kind._trilemma_swap.own if issubclass(kind, Swapped) else kind


def parametrized(module: nn.Module) -> bool:
    """Returns whether a parameter of a module is computed from others."""
    return "parametrizations" in module._modules


def why_other_dtype(weight: Tensor) -> str:
    """Returns why the kernels compute nothing with a weight of its dtype; "" where they do."""
    return "" if weight.dtype in KERNEL_DTYPES else f"no kernel computes in {weight.dtype}"


def is_traced() -> bool:
    """Returns whether torch.jit or torch.export records what runs, for use without the operators."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return torch._C._get_tracing_state() is not None


def as_written() -> bool:
    """Returns whether a forward is compiled or traced, so that it must run as it is written."""
    return torch.compiler.is_compiling() or is_traced()


def run_own(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Calls the forward that the own class of a module defines; also of one that is not swapped any more."""
    return own_class(module).forward(module, *args, **kwargs)


def swap(module: nn.Module, before: type[nn.Module]) -> None:
    """Puts `before` into the class of a module.

    One that derives from nn.Module alone comes in front of the module's class; one that derives from a class of torch,
    such as GroupNorm, directly in front of that, so that the forward of a subclass reaches it by `super()`.
    """
    module.__class__ = _swapped_class(cast(Any, type(module)), cast(Any, before))


def unswap(module: nn.Module) -> None:
    """Gives a module its own class back; one that was not swapped stays as it is."""
    _set_class(module, lambda made: made.own)


def step_back(module: nn.Module) -> None:
    """Gives a module the class back that it had before the last swap."""
    _set_class(module, lambda made: made.inner)


def _set_class(module: nn.Module, of: Callable[[Swap], type[nn.Module]]) -> None:
    derived: type | None = None
    for kind in type(module).__mro__:
        if made := vars(kind).get("_trilemma_swap"):
            if derived is None:
                module.__class__ = of(made)
            # Else a parametrization made a class of its own from ours.
            else:
                derived.__bases__ = (of(made),)
            return
        if issubclass(kind, Swapped):
            derived = kind


@cache
def _swapped_class(inner: Any, before: Any) -> Any:
    swap = vars(inner).get("_trilemma_swap")
    own = swap.own if swap else inner
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    names["_trilemma_swap"] = Swap(own, before, inner)
    bases = [before]
    if not issubclass(before, inner):
        bases.insert(0 if _of_torch(before) is not nn.Module else 1, inner)
    if not issubclass(inner, Swapped):
        bases.insert(0, Swapped)
    return type(own.__name__, tuple(bases), names)


def _of_torch(before: Any) -> Any:
    """The class that is known to be below one that is put in."""
    return next(kind for kind in before.__mro__ if kind.__module__.startswith("torch."))


def _lasting(kind: type[Swapped]) -> tuple[type[nn.Module], ...]:
    """What was put into the own class of a swapped one, in order, without that which copies do not have."""
    swap = kind._trilemma_swap
    below = _lasting(swap.inner) if issubclass(swap.inner, Swapped) else ()
    return below if getattr(swap.before, "_trilemma_once", False) else (*below, swap.before)


def _renewed(own: type[nn.Module], befores: tuple[type[nn.Module], ...], *arguments: Any) -> nn.Module:
    kind = own
    for before in befores:
        kind = _swapped_class(cast(Any, kind), cast(Any, before))
    made: nn.Module = kind.__new__(kind, *arguments)
    return made
