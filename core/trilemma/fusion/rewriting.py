"""Traces the forward of one module, its children taken as they are, and rewrites the patterns in it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from trilemma.fusion.patterns import attended, normalised

_ADDITIONS = (operator.add, torch.add)
_PRODUCTS = (operator.mul, torch.mul)


class CannotTrace(Exception):
    """The forward decides by the values or shapes that it sees; the message says how."""


@dataclass
class Rewritten:
    """A rewritten forward and the names of the patterns in it."""

    forward: Callable[..., Any]
    parameters: tuple[str, ...]
    patterns: list[str]


def rewrite(module: nn.Module) -> Rewritten:
    """The forward of `module` with its patterns as operators; none if it has none.

    Only the module's own forward is traced: its children stay calls. Arguments without a default are taken to be
    tensors, those with a default to be left out.

    Raises:
        CannotTrace: where the forward cannot be traced.
    """
    required = _required_parameters(module)
    names = ", ".join(required)
    namespace: dict[str, Any] = {}
    exec(
        f"def forward(self, {names}):\n    return self.inner.forward({names})", namespace
    )  # fx reads the names
    shim = type("Traced", (nn.Module,), {"forward": namespace["forward"]})()
    shim.inner = module
    try:
        graph = _ChildrenAreLeaves().trace(shim)
    except Exception as error:  # whatever a foreign forward may raise on proxies
        raise CannotTrace((str(error) or type(error).__name__).split(". ")[0].splitlines()[0]) from error
    traced = fx.GraphModule(shim, graph)
    patterns = _rewrite_norms(traced.graph, shim) + _rewrite_attention(traced.graph)
    traced.recompile()
    return Rewritten(traced.forward, required, patterns)


class _TensorProxy(fx.Proxy):
    """A proxy that passes for a tensor: a forward that asks `isinstance` takes the way it takes for tensors."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return torch.Tensor


class _ChildrenAreLeaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _TensorProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)


def _required_parameters(module: nn.Module) -> tuple[str, ...]:
    kinds = inspect.Parameter
    required = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            continue
        if parameter.default is not kinds.empty:
            break
        if parameter.kind == kinds.KEYWORD_ONLY:
            raise CannotTrace(f"its argument {parameter.name!r} can only be given by name")
        required.append(parameter.name)
    return tuple(required)


def _rewrite_norms(graph: fx.Graph, root: nn.Module) -> list[str]:
    found = []
    for node in list(graph.nodes):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        norm = root.get_submodule(node.target)
        if type(norm) is not nn.GroupNorm or norm.weight is None:
            continue
        last, scale, shift = _modulation(node)
        activation = _single_user(last)
        silu = activation is not None and _is_silu(activation, root)
        if silu:
            assert activation is not None
            last = activation
        with graph.inserting_before(last):
            module = graph.get_attr(node.target)
            fused = graph.call_function(normalised, (module, node.args[0], scale, shift, silu))
        last.replace_all_uses_with(fused)
        found.append(
            "GroupNorm" + (" + scale and shift" if shift is not None else "") + (" + SiLU" if silu else "")
        )
        graph.eliminate_dead_code()
    return found


def _modulation(norm: fx.Node) -> tuple[fx.Node, Any, Any]:
    """The last node of GN(x)·(1 + scale) + shift that begins at `norm`, with scale and shift; or `norm` alone."""
    product = _single_user(norm)
    if product is None:
        return norm, None, None
    if product.op == "call_function" and product.target is torch.addcmul and not product.kwargs:
        shift, first, second = product.args
        scale = _one_plus(second if first is norm else first)
        return (product, scale, shift) if scale is not None and shift is not norm else (norm, None, None)
    if not _calls(product, _PRODUCTS, "mul"):
        return norm, None, None
    scale = _one_plus(product.args[1] if product.args[0] is norm else product.args[0])
    total = _single_user(product)
    if scale is None or total is None or not _calls(total, _ADDITIONS, "add"):
        return norm, None, None
    return total, scale, total.args[1] if total.args[0] is product else total.args[0]


def _one_plus(node: Any) -> fx.Node | None:
    """The scale of a node that is 1 + scale."""
    if not isinstance(node, fx.Node) or not _calls(node, _ADDITIONS, "add"):
        return None
    first, second = node.args
    if first == 1 and isinstance(second, fx.Node):
        return second
    return first if second == 1 and isinstance(first, fx.Node) else None


def _calls(node: fx.Node, functions: tuple[Any, ...], method: str) -> bool:
    named = (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target == method
    )
    return named and len(node.args) == 2 and not node.kwargs


def _single_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_silu(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))) is nn.SiLU and len(node.args) == 1
    return node.op == "call_function" and node.target is F.silu and len(node.args) == 1


def _rewrite_attention(graph: fx.Graph) -> list[str]:
    found = []
    for node in graph.nodes:
        if node.op == "call_function" and node.target is F.scaled_dot_product_attention:
            node.target = attended
            found.append("attention")
    return found
