"""Swaps the class of a module for a subclass of it whose forward calls the operators."""

from __future__ import annotations

import copyreg
from functools import cache
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

KERNEL_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)


class Swapped(nn.Module):
    """Stands before a module's own class, whose forward it calls where the operators do not fit.

    The module stays the same object with the same attributes, so that the next call sees any later change (a child
    replaced, weights assigned, hooks, a shallow or deep copy, a pickle).

    Attributes:
        own_class: the class that the module had.
        before: the class that was put before it.
        not_copied: attributes that a copy makes for itself.
    """

    own_class: type[nn.Module]
    before: type[Swapped]
    not_copied: tuple[str, ...] = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        function, arguments, state, *rest = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        if function is not copyreg.__newobj__ or "own_class" not in vars(arguments[0]):  # type: ignore[attr-defined]
            return function, arguments, state, *rest
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in self.not_copied}
        return _renewed, (self.own_class, self.before, *arguments[1:]), state, *rest


def own_class(module: nn.Module) -> type[nn.Module]:
    """Returns the class of a module as it is without swapping."""
    kind = type(module)
    return cast(type[nn.Module], vars(kind).get("own_class", kind))


def other_class(module: nn.Module, known: type[nn.Module]) -> str:
    """Returns why a module of a kind is left where its class is not the known one itself."""
    kind = own_class(module).__name__
    if issubclass(own_class(module), known):
        return f"its class {kind} is a subclass of {known.__name__}, which may compute something else"
    return f"its class is {kind}, not {known.__name__}"


def why_other_dtype(weight: Tensor) -> str:
    """Returns why the kernels compute nothing with a weight of its dtype; "" where they do."""
    return "" if weight.dtype in KERNEL_DTYPES else f"no kernel computes in {weight.dtype}"


def run_own(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Calls the forward that the own class of a module defines; also of one that is not swapped any more."""
    kind = type(module)
    return getattr(kind, "own_class", kind).forward(module, *args, **kwargs)


def swap(module: nn.Module, before: type[Swapped]) -> None:
    """Puts `before` in front of the class of a module."""
    module.__class__ = _swapped_class(cast(Any, type(module)), cast(Any, before))


def unswap(module: nn.Module) -> None:
    """Gives a module its own class back; one that was not swapped stays as it is."""
    derived: type | None = None
    for kind in type(module).__mro__:
        if "own_class" in vars(kind):
            if derived is None:
                module.__class__ = vars(kind)["own_class"]
            # Else a parametrization made a class of its own from ours.
            else:
                derived.__bases__ = (vars(kind)["own_class"],)
            return
        if issubclass(kind, Swapped):
            derived = kind


@cache
def _swapped_class(own: Any, before: Any) -> Any:
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (before, own), {"own_class": own, "before": before, **names})


def _renewed(own: type[nn.Module], before: type[Swapped], *arguments: Any) -> nn.Module:
    kind = _swapped_class(cast(Any, own), cast(Any, before))
    made: nn.Module = kind.__new__(kind, *arguments)
    return made
