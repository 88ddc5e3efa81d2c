"""Group normalisations of a fused network."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_map

from trilemma import ops
from trilemma.models.fusion.pending import Pending, computed
from trilemma.models.fusion.swapping import Swapped, other_class, run_own, why_other_dtype
from trilemma.ops.operator import is_transformed


class _Running(threading.local):
    """The module whose forward runs in this thread, of those that wait for activations."""

    owner: nn.Module | None = None


_running = _Running()


class Owner(Swapped):
    """A module whose forward follows its normalisations by steps that the operator can compute."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return run_own(self, *args, **kwargs)
        outer = _running.owner
        _running.owner = self
        try:
            result = run_own(self, *args, **kwargs)
        finally:
            _running.owner = outer
        return result if type(result) is Tensor else tree_map(computed, result)


class Normalized(Swapped):
    """A group normalisation.

    Attributes:
        followed_by: where its owner's forward goes on with nothing but a modulation and an activation: the name under
            which the owner holds it, and that of the activation where it is a module.
    """

    own_class: type[nn.GroupNorm]
    num_groups: int
    eps: float
    followed_by: tuple[str, str | None] | None = None

    def forward(self, x: Tensor) -> Any:
        # Not where somebody kept this forward from before `unfuse`.
        if not isinstance(self, Normalized):
            return run_own(self, x)
        x, parameters = computed(x), self._parameters
        weight, bias = parameters.get("weight"), parameters.get("bias")
        if weight is None or bias is None or not self._fits(x, weight, bias):
            return run_own(self, x)
        if self.followed_by is not None and not torch.compiler.is_compiling() and self._is_waited_for():
            return Pending(self, x, weight, bias)
        if torch.is_autocast_enabled(x.device.type):
            return run_own(self, x)
        return ops.group_norm_act(x, self.num_groups, weight, bias, eps=self.eps)

    def _fits(self, x: Tensor, weight: Tensor, bias: Tensor) -> bool:
        """Returns whether the operator computes it."""
        dtype = weight.dtype
        fits = dtype == bias.dtype and (dtype == x.dtype or dtype == torch.float32) and x.dim() > 1
        return fits and type(x) in (Tensor, nn.Parameter) and not is_transformed(x, weight, bias)

    def _is_waited_for(self) -> bool:
        owner, (name, activation) = _running.owner, self.followed_by or ("", None)
        if owner is None or owner._modules.get(name) is not self or is_changed(self):
            return False
        if activation is None:
            return True
        act = owner._modules.get(activation)
        return type(act) is nn.SiLU and not act.inplace and not is_changed(act)


def why_not_normalized(norm: nn.Module) -> str:
    """Returns why a group normalisation that is not fused cannot be; "" where it can."""
    if type(norm) is not nn.GroupNorm:
        return other_class(norm, nn.GroupNorm)
    weight, bias = norm.weight, norm.bias
    if weight is None or bias is None:
        return "it has no weight and bias"
    if weight.dtype != bias.dtype:
        return f"its weight is {weight.dtype} and its bias {bias.dtype}"
    return why_other_dtype(weight)


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
