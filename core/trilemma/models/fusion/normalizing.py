"""Group normalisations of a fused network."""

from __future__ import annotations

import threading
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_map

from trilemma import ops
from trilemma.models.fusion.pending import Pending, computed
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import NORM
from trilemma.models.fusion.swapping import (
    as_written,
    is_traced,
    own_class,
    parametrized,
    run_own,
    why_other_dtype,
)
from trilemma.ops.group_norm import why_left
from trilemma.ops.operator import is_transformed

# The names on the way from a module to one below it.
Path = tuple[str, ...]


class _Running(threading.local):
    """The module whose forward runs in this thread, of those that wait for activations."""

    owner: nn.Module | None = None


_running = _Running()


class Owner(nn.Module):
    """A module whose forward follows its normalisations by steps that the operator can compute.

    Attributes:
        _trilemma_following: for each of those normalisations the path to it, and that to the activation where it is a
            module.
    """

    _trilemma_following: tuple[tuple[Path, Path | None], ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Not where somebody kept this forward from before `unfuse`, nor in a slice of a sequence.
        if not getattr(self, "_trilemma_following", ()) or as_written():
            return run_own(self, *args, **kwargs)
        outer = _running.owner
        _running.owner = self
        try:
            result = run_own(self, *args, **kwargs)
        finally:
            _running.owner = outer
        return result if type(result) is Tensor else tree_map(computed, result)


class Normalized(nn.GroupNorm):
    """A group normalisation; that of a subclass whose forward calls it by `super()` too."""

    def forward(self, x: Tensor) -> Any:
        x, parameters = computed(x), self._parameters
        weight, bias = parameters.get("weight"), parameters.get("bias")
        why = _why_as_written(self, x, weight, bias)
        compiling = torch.compiler.is_compiling()
        if not why and not compiling and _is_waited_for(self):
            return Pending(self, x, cast(Tensor, weight), cast(Tensor, bias))
        if not why and torch.is_autocast_enabled(x.device.type):
            why = "autocast chooses its dtype"
        why = why or why_left(x, self.num_groups, weight, bias)
        if not compiling:
            note(self, "" if why else NORM, why)
        if why:
            return nn.GroupNorm.forward(self, x)
        return ops.group_norm_act(x, self.num_groups, weight, bias, eps=self.eps)


def _why_as_written(norm: nn.GroupNorm, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str:
    """Returns why a call runs as torch writes it; "" where the operator computes it."""
    # Where somebody kept this forward from before `unfuse`.
    if not isinstance(norm, Normalized):
        return "it is fused no more"
    if weight is None or bias is None:
        return "it has no weight and bias of its own"
    if type(x) not in (Tensor, nn.Parameter) or x.dim() < 2:
        return f"it normalises a {type(x).__name__} of another kind"
    if weight.dtype != bias.dtype or weight.dtype not in (x.dtype, torch.float32):
        return f"it normalises {x.dtype} by {weight.dtype} and {bias.dtype}"
    if is_traced() or is_transformed(x, weight, bias):
        return "it is traced, or differentiated forward"
    return ""


def _is_waited_for(norm: nn.GroupNorm) -> bool:
    owner = _running.owner
    if owner is None or is_changed(norm):
        return False
    for path, activation in getattr(owner, "_trilemma_following", ()):
        if at(owner, path) is norm:
            act = None if activation is None else at(owner, activation)
            return activation is None or (type(act) is nn.SiLU and not act.inplace and not is_changed(act))
    return False


def at(owner: nn.Module, path: Path) -> nn.Module | None:
    """Returns the module at the end of a path, None where it does not lead to one."""
    module: nn.Module | None = owner
    for name in path:
        if module is None:
            return None
        module = module._modules.get(name)
    return module


def why_not_normalized(norm: nn.Module) -> str:
    """Returns why a group normalisation that is not fused cannot be; "" where it can."""
    assert isinstance(norm, nn.GroupNorm)
    if parametrized(norm):
        return "it is parametrized"
    if not reaches(own_class(norm).forward, nn.GroupNorm.forward):
        return (
            f"the forward of its class {own_class(norm).__name__} computes it by itself, without GroupNorm's"
        )
    weight, bias = norm.weight, norm.bias
    if weight is None or bias is None:
        return "it has no weight and bias"
    if weight.dtype != bias.dtype:
        return f"its weight is {weight.dtype} and its bias {bias.dtype}"
    return why_other_dtype(weight)


def reaches(forward: Any, known: Any) -> bool:
    """Returns whether the method of a subclass is that of torch's class, or calls that by `super()`."""
    names = getattr(getattr(forward, "__code__", None), "co_names", ())
    return forward is known or {"super", known.__name__} <= set(names)


def is_changed(module: nn.Module) -> bool:
    """Returns whether a call of a module does more than the forward of its class."""
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or modules._global_forward_hooks
        or modules._global_forward_pre_hooks
        or modules._global_backward_hooks
        or modules._global_backward_pre_hooks
    )
