"""What stands in a rewritten forward: each pattern as one call, or its definition where the operator does not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma import ops


def normalised(
    norm: nn.GroupNorm,
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """act(GN(x)·(1 + scale) + shift) for scale and shift [B, C, 1, ...], which the operator takes as [B, C]."""
    per_channel = (x.shape[0], x.shape[1], *[1] * (x.dim() - 2))
    if scale is None and shift is None:
        return ops.group_norm_act(x, norm.num_groups, norm.weight, norm.bias, eps=norm.eps, silu=silu)
    if scale is not None and shift is not None and scale.shape == shift.shape == per_channel:
        modulation = {"scale": scale.flatten(1), "shift": shift.flatten(1)}
        return ops.group_norm_act(
            x, norm.num_groups, norm.weight, norm.bias, **modulation, eps=norm.eps, silu=silu
        )
    y = ops.group_norm_act(x, norm.num_groups, norm.weight, norm.bias, eps=norm.eps)
    y = y if scale is None else y * (1 + scale)
    y = y if shift is None else y + shift
    return F.silu(y) if silu else y


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **options: Any,
) -> Tensor:
    """`scaled_dot_product_attention`, by the operator where nothing is masked, dropped or shared."""
    plain = attn_mask is None and not dropout_p and not is_causal and not enable_gqa and not options
    if plain and query.dim() == 4 and key.shape[:2] == query.shape[:2]:
        return ops.attention(query, key, value, scale=scale)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa, **options
    )


class AttentionCalls(torch.overrides.TorchFunctionMode):
    """Sends every call of `scaled_dot_product_attention` in this thread to `attended` while it is entered."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            with torch._C.DisableTorchFunctionSubclass():
                return attended(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
