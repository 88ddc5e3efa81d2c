"""Attention of a fused network."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma import ops
from trilemma.models.fusion.matching import ATTENTION_OPTIONS, why_option
from trilemma.models.fusion.normalizing import Owner
from trilemma.models.fusion.pending import computed
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import ATTENTION
from trilemma.models.fusion.swapping import as_written, run_own
from trilemma.ops.operator import is_transformed


class Attending(Owner):
    """A module whose calls of `scaled_dot_product_attention` go to the operator where it fits."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if as_written():
            return run_own(self, *args, **kwargs)
        with _Calls(self):
            return Owner.forward(self, *args, **kwargs)


class _Calls(torch.overrides.TorchFunctionMode):
    """Sends the calls of `scaled_dot_product_attention` in this thread to `_attended`."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self._owner = owner

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            with torch._C.DisableTorchFunctionSubclass():
                return _attended(self._owner, *args, **(kwargs or {}))
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
        found = [function.__globals__.get(name) for name in code.co_names]
        # As transformers chooses it by name from a table.
        named += [entry for table in found if isinstance(table, Mapping) for entry in table.values()] + found
        if "super" in code.co_names:
            named += [vars(base).get(function.__name__) for base in kind.__mro__ if base is not nn.Module]
        waiting += [entry for entry in named if isinstance(entry, types.FunctionType)]
    return False


def _attended(
    owner: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
) -> Tensor:
    """`scaled_dot_product_attention`, by the operator where nothing is masked, dropped or shared."""
    query, key, value = computed(query), computed(key), computed(value)
    given = dict(zip(ATTENTION_OPTIONS, args, strict=False)) | options
    if why := _why_as_written(query, key, value, given):
        note(owner, why=why)
        return F.scaled_dot_product_attention(query, key, value, *args, **options)
    note(owner, ATTENTION)
    return ops.attention(query, key, value, scale=given.get("scale"))


def _why_as_written(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any]) -> str:
    """Returns why a call runs as torch writes it; "" where the operator computes it."""
    if why := why_option(given):
        return why
    if not all(type(tensor) in (Tensor, nn.Parameter) for tensor in (query, key, value)):
        return "it attends to tensors of another kind"
    if query.dim() != 4 or key.shape[:2] != query.shape[:2]:
        return "it attends without heads, or with other heads for keys than for queries"
    return "it is differentiated forward" if is_transformed(query, key, value) else ""
