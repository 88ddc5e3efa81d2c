"""Normalisations of a fused network."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_map

from trilemma.models.fusion.gating import watching
from trilemma.models.fusion.kinds import kind_of
from trilemma.models.fusion.pending import Pending, computed
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import OPERATOR_OF
from trilemma.models.fusion.swapping import (
    as_written,
    is_traced,
    own_class,
    parametrized,
    run_own,
    why_other_dtype,
)
from trilemma.ops.operator import OPERATORS, is_transformed

_KNOWN = frozenset((Tensor, type(None)))
_FEW = "it normalises so few numbers that PyTorch is as fast"
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
        _trilemma_gates: for each activation that a product with the value beside its gate follows, the path to it where
            it is a module.
    """

    _trilemma_following: tuple[tuple[Path, Path | None], ...] = ()
    _trilemma_gates: tuple[Path | None, ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Not where somebody kept this forward from before `unfuse`, nor in a slice of a sequence.
        following, gates = getattr(self, "_trilemma_following", ()), getattr(self, "_trilemma_gates", ())
        if not (following or gates) or as_written():
            return run_own(self, *args, **kwargs)
        outer = _running.owner
        _running.owner = self
        try:
            with watching(self, args) if _are_as_they_were(self, gates) else nullcontext():
                result = run_own(self, *args, **kwargs)
        finally:
            _running.owner = outer
        if type(result) is Tensor or (type(result) is tuple and _KNOWN.issuperset(map(type, result))):
            return result
        return tree_map(computed, result)


def _are_as_they_were(owner: nn.Module, gates: tuple[Path | None, ...]) -> bool:
    """Returns whether there are activations of gates, and a call of each does nothing but compute it."""
    for path in gates:
        act = None if path is None else at(owner, path)
        if path is not None and (type(act) not in (nn.SiLU, nn.GELU) or is_changed(cast(nn.Module, act))):
            return False
    return bool(gates)


class Normalized(nn.GroupNorm):
    """A group normalisation; that of a subclass whose forward calls it by `super()` too."""

    def forward(self, x: Tensor) -> Any:
        return _normalised(self, x, isinstance(self, Normalized))


class LayerNormalized(nn.LayerNorm):
    """A layer normalisation; that of a subclass whose forward calls it by `super()` too."""

    def forward(self, x: Tensor) -> Any:
        return _normalised(self, x, isinstance(self, LayerNormalized))


def _normalised(norm: Any, x: Tensor, fused: bool) -> Any:
    x, parameters, kind = computed(x), norm._parameters, kind_of(norm)
    weight, bias = parameters.get("weight"), parameters.get("bias")
    compiling = torch.compiler.is_compiling()
    # The size of what is recorded may vary.
    few = kind.least > 0 and not as_written() and isinstance(x, Tensor) and x.numel() < kind.least
    why = _FEW if few else _why_as_written(norm, x, weight, bias, fused)
    if not why and not compiling and _is_waited_for(norm):
        return Pending(kind, norm, x, weight, bias)
    if not why:
        why = "autocast chooses its dtype" if torch.is_autocast_enabled(x.device.type) else kind.alone
    why = why or kind.why_left(norm, x, weight, bias)
    if not compiling:
        note(norm, "" if why else kind.pattern, why)
    return kind.own.forward(norm, x) if why else kind.run(norm, x, weight, bias)


def _why_as_written(norm: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, fused: bool) -> str:
    """Returns why a call runs as torch writes it; "" where the operator computes it."""
    # Where somebody kept this forward from before `unfuse`.
    if not fused:
        return "it is fused no more"
    if why := _why_maps(norm, weight, bias):
        return why
    if type(x) not in (Tensor, nn.Parameter) or x.dim() < 2:
        return f"it normalises a {type(x).__name__} of another kind"
    if isinstance(norm, nn.LayerNorm) and (why := _why_tokens(norm, x)):
        return why
    given = [tensor for tensor in (weight, bias) if tensor is not None]
    if len({tensor.dtype for tensor in given}) > 1 or any(
        tensor.dtype not in (x.dtype, torch.float32) for tensor in given
    ):
        return f"it normalises {x.dtype} by {' and '.join(str(tensor.dtype) for tensor in given)}"
    if is_traced() or is_transformed(x, weight, bias):
        return "it is traced, or differentiated forward"
    return ""


def _why_tokens(norm: nn.LayerNorm, x: Tensor) -> str:
    """Returns why the operator does not normalise these tokens; "" where it does."""
    if x.shape[-1:] != norm.normalized_shape:
        return "it normalises tokens of another width"
    if x.device.type != "cpu":
        return f"it is on {x.device}, where it was not measured against PyTorch"
    return "autocast chooses its dtype" if torch.is_autocast_enabled("cpu") else ""


def _why_maps(norm: Any, weight: Tensor | None, bias: Tensor | None) -> str:
    """Returns why the operator does not take the weight and bias of a normalisation; "" where it does."""
    if isinstance(norm, nn.GroupNorm):
        return "" if weight is not None and bias is not None else "it has no weight and bias of its own"
    # A replica has them as plain attributes.
    if (weight is None) != (norm.weight is None) or (bias is None) != (norm.bias is None):
        return "it has no weight and bias of its own"
    return "" if len(norm.normalized_shape) == 1 else "it normalises several dimensions"


def _is_waited_for(norm: nn.Module) -> bool:
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
    """Returns why a normalisation that is not fused cannot be; "" where it can."""
    own, kind = kind_of(norm).own, own_class(norm)
    if parametrized(norm):
        return "it is parametrized"
    if not reaches(kind.forward, own.forward):
        return f"the forward of its class {kind.__name__} computes it by itself, without {own.__name__}'s"
    weight: Any = norm.weight
    bias: Any = norm.bias
    if own is nn.GroupNorm and (weight is None or bias is None):
        return "it has no weight and bias"
    if why := _why_maps(norm, weight, bias):
        return why
    if weight is not None and bias is not None and weight.dtype != bias.dtype:
        return f"its weight is {weight.dtype} and its bias {bias.dtype}"
    why = "" if weight is None else why_other_dtype(weight)
    return why or OPERATORS[OPERATOR_OF[kind_of(norm).pattern]].why_not_native()


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
