"""The kinds of normalisation that operators compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

from trilemma import ops
from trilemma.models.fusion.report import LAYER_NORM, NORM
from trilemma.ops.group_norm import why_left


@dataclass(frozen=True)
class Kind:
    """One kind of normalisation.

    Attributes:
        pattern: its name in a report.
        own: the class of torch that it has.
        run: the operator, given the module, x, weight, bias, and scale and shift [B, C] where they follow.
        channels: the dimension of x that has the channels.
        activates: whether the operator computes SiLU too.
        least: with fewer numbers in x PyTorch is as fast.
        why_left: says why a call is left to PyTorch, "" where it is not; given the module, x and the other tensors.
        alone: why it is left where nothing follows that can be computed with it; "" where it is not.
    """

    pattern: str
    own: Any
    run: Callable[..., Tensor]
    channels: Callable[[Tensor], int]
    activates: bool
    why_left: Callable[..., str]
    least: int = 0
    alone: str = ""


def _group_norm(
    norm: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    return ops.group_norm_act(
        x, norm.num_groups, weight, bias, scale=scale, shift=shift, eps=norm.eps, silu=silu
    )


def _why_group_norm_left(norm: Any, x: Tensor, *tensors: Tensor | None) -> str:
    return why_left(x, norm.num_groups, *tensors)


def _layer_norm(
    norm: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    # As torch's own does with the tokens of a feature map.
    x = x.contiguous()
    return ops.layer_norm(x, weight, bias, scale=scale, shift=shift, eps=norm.eps)


KINDS: Final = (
    Kind(NORM, nn.GroupNorm, _group_norm, lambda x: 1, True, _why_group_norm_left),
    Kind(
        LAYER_NORM,
        nn.LayerNorm,
        _layer_norm,
        lambda x: x.dim() - 1,
        False,
        lambda *_: "",
        least=1 << 17,
        alone="without scale and shift behind it, PyTorch's LayerNorm is as fast",
    ),
)


def kind_of(norm: nn.Module) -> Kind:
    """Returns the kind of a normalisation."""
    return next(kind for kind in KINDS if isinstance(norm, kind.own))


def is_norm(module: nn.Module) -> bool:
    """Returns whether a module is a normalisation of a kind that an operator computes."""
    return any(isinstance(module, kind.own) for kind in KINDS)
