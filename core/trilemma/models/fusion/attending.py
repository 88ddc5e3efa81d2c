"""Attention of a fused network."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma import ops
from trilemma.models.fusion.normalizing import Owner
from trilemma.models.fusion.swapping import run_own
from trilemma.ops.operator import is_transformed


class Attending(Owner):
    """A module whose calls of `scaled_dot_product_attention` go to the operator where it fits."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return run_own(self, *args, **kwargs)
        with _Calls():
            return Owner.forward(self, *args, **kwargs)


class _Calls(torch.overrides.TorchFunctionMode):
    """Sends the calls of `scaled_dot_product_attention` in this thread to `_attended`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            with torch._C.DisableTorchFunctionSubclass():
                return _attended(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def mentions_attention(kind: type[nn.Module]) -> bool:
    """Returns whether the forward of a class calls `scaled_dot_product_attention` by name, itself or in what it calls.

    Followed are the class's own methods and functions that the calling module names.
    """
    waiting: list[Any] = [kind.forward]
    seen: set[Any] = set()
    while waiting:
        function = waiting.pop()
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        if "scaled_dot_product_attention" in code.co_names:
            return True
        named = [getattr(kind, name, None) for name in code.co_names if name not in vars(nn.Module)]
        named += [function.__globals__.get(name) for name in code.co_names]
        if "super" in code.co_names:
            named += [vars(base).get(function.__name__) for base in kind.__mro__ if base is not nn.Module]
        waiting += [found for found in named if isinstance(found, types.FunctionType)]
    return False


def _attended(
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
    fits = attn_mask is None and not dropout_p and not is_causal and not enable_gqa and not options
    fits = fits and query.dim() == 4 and not is_transformed(query, key, value)
    if fits and key.shape[:2] == query.shape[:2]:
        return ops.attention(query, key, value, scale=scale)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa, **options
    )
