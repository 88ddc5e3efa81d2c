"""Finds the patterns that the operators compute in the graph of a forward."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from trilemma.models.fusion.kinds import Kind, is_norm, kind_of
from trilemma.models.fusion.pending import CASTS
from trilemma.models.fusion.report import ACTIVATED, GEGLU, MODULATED, SWIGLU
from trilemma.models.fusion.swapping import own_class
from trilemma.models.fusion.tracing import CannotTrace, trace, writes_in_place

_ADDITIONS = (operator.add, torch.add)
_PRODUCTS = (operator.mul, torch.mul)
# In the order of the arguments.
ATTENTION_OPTIONS = {
    "attn_mask": "it attends with a mask",
    "dropout_p": "it attends with dropout",
    "is_causal": "it attends causally",
    "enable_gqa": "it attends with shared keys and values",
}


@dataclass
class Found:
    """The patterns in the forward of a module.

    Attributes:
        patterns: the pattern that begins at each normalisation that it calls, by its path.
        norms: those that nothing but a modulation and an activation follows, each with the activation's path where that
            is a module.
        gates: the pattern of each product with an activation of the half beside it, with the path of the activation
            where that is a module.
        attention: number of attention calls that the operator may fit.
        unfit: why it does not fit the other calls.
    """

    patterns: dict[str, str] = field(default_factory=dict)
    norms: dict[str, str | None] = field(default_factory=dict)
    gates: list[tuple[str, str | None]] = field(default_factory=list)
    attention: int = 0
    unfit: list[str] = field(default_factory=list)


def find(graph: fx.Graph, owner: nn.Module) -> Found:
    """Returns the patterns in the graph of a module's forward."""
    found, nodes = Found(), list(graph.nodes)
    norms = norms_of(owner)
    for place, node in enumerate(nodes):
        if node.op == "call_function" and node.target is F.scaled_dot_product_attention:
            if why := why_unfit(node):
                found.unfit.append(why)
            else:
                found.attention += 1
        if gate := _gate(node, owner, nodes):
            found.gates.append(gate)
        if node.op != "call_module" or node.target not in norms:
            continue
        name = str(node.target)
        kind = kind_of(norms[name])
        last, pattern, activation = _pattern(node, owner, kind)
        between = nodes[place + 1 : nodes.index(last)]
        waits = last is not node and len(node.args) == 1 and not node.kwargs
        if not waits or any(_writes(other, owner) for other in between):
            pattern, activation, waits = kind.pattern, None, False
        way = (pattern, activation if waits else None)
        if name in found.patterns and (found.patterns[name], found.norms.get(name)) != way:
            # It is called in two ways.
            found.norms.pop(name, None)
            found.patterns[name] = kind.pattern
            continue
        found.patterns[name] = pattern
        if waits:
            found.norms[name] = activation
    return found


def why_unfit(call: fx.Node) -> str:
    """Returns why the operator cannot be a call of `scaled_dot_product_attention`; "" where nothing in it says so."""
    named = {name: value for name, value in call.kwargs.items() if name not in ("query", "key", "value")}
    return why_option(dict(zip(ATTENTION_OPTIONS, call.args[3:], strict=False)) | named)


def why_option(given: Mapping[str, Any]) -> str:
    """Returns why the operator cannot attend with these options; "" where it can."""
    for name, value in given.items():
        if name != "scale" and (value if isinstance(value, bool | int | float) else value is not None):
            return ATTENTION_OPTIONS.get(name) or f"it attends with {name}"
    return ""


def norms_of(owner: nn.Module) -> dict[str, nn.Module]:
    """Returns the normalisations that a module holds, by their path; those in lists and sequences of it too."""
    found: dict[str, nn.Module] = {}
    for name, child in owner._modules.items():
        if child is not None and is_norm(child):
            found[name] = child
        elif isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            found |= {f"{name}.{path}": norm for path, norm in norms_of(child).items()}
    return found


def waits_in(norm: nn.Module) -> bool:
    """Returns whether the forward of a normalisation's class only casts besides, so that its result may wait.

    As `super().forward(x.float()).type(x.dtype)`.
    """
    if own_class(norm) is kind_of(norm).own:
        return True
    try:
        nodes = list(trace(norm).nodes)
    except CannotTrace:
        return False
    return all(
        node.op in ("placeholder", "output")
        or (node.op == "call_function" and node.target in (F.group_norm, F.layer_norm, getattr))
        or (node.op == "call_method" and node.target in CASTS)
        for node in nodes
    )


def _pattern(norm: fx.Node, owner: nn.Module, kind: Kind) -> tuple[fx.Node, str, str | None]:
    """The last node of the pattern that begins at `norm`, its name, and that of its activation where it is a child."""
    last, modulated = _modulation(norm)
    activation = _single_user(last)
    silu = kind.activates and activation is not None and _is_silu(activation, owner)
    name = None
    if activation is not None and silu:
        last = activation
        name = str(activation.target) if activation.op == "call_module" else None
    return last, kind.pattern + MODULATED * modulated + ACTIVATED * silu, name


def _modulation(norm: fx.Node) -> tuple[fx.Node, bool]:
    """The last node of norm(x)·(1 + scale) + shift that begins at `norm`, and whether it is one."""
    product = _single_user(norm)
    if product is None:
        return norm, False
    if product.op == "call_function" and product.target is torch.addcmul and not product.kwargs:
        shift, first, second = product.args
        modulated = _is_one_plus(second if first is norm else first) and shift is not norm
        return (product, True) if modulated else (norm, False)
    if not _calls(product, _PRODUCTS, "mul"):
        return norm, False
    total = _single_user(product)
    factor = product.args[1] if product.args[0] is norm else product.args[0]
    if total is None or not _is_one_plus(factor) or not _calls(total, _ADDITIONS, "add"):
        return norm, False
    return total, True


def _is_one_plus(node: Any) -> bool:
    # As in `(1 + scale)[:, None]`.
    while isinstance(node, fx.Node) and (
        node.target is operator.getitem or (node.op == "call_method" and node.target == "unsqueeze")
    ):
        node = node.args[0]
    if not isinstance(node, fx.Node) or not _calls(node, _ADDITIONS, "add"):
        return False
    ones = [argument for argument in node.args if isinstance(argument, int | float) and argument == 1]
    return len(ones) == 1 and any(isinstance(argument, fx.Node) for argument in node.args)


def _calls(node: fx.Node, functions: tuple[Any, ...], method: str) -> bool:
    named = (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target == method
    )
    return named and len(node.args) == 2 and not node.kwargs


def _single_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_silu(node: fx.Node, owner: nn.Module) -> bool:
    if len(node.args) != 1 or any(node.kwargs.values()):
        return False
    if node.op == "call_module":
        return type(owner.get_submodule(str(node.target))) is nn.SiLU
    return node.op == "call_function" and node.target is F.silu


def _gate(product: fx.Node, owner: nn.Module, nodes: list[fx.Node]) -> tuple[str, str | None] | None:
    """The pattern of value·act(gate) whose product this is, and the path of its activation; None where it is none."""
    if not _calls(product, _PRODUCTS, "mul"):
        return None
    for value, act in (product.args, product.args[::-1]):
        if not isinstance(act, fx.Node) or not isinstance(value, fx.Node) or len(act.users) != 1:
            continue
        in_place = act.op == "call_module" and getattr(owner.get_submodule(str(act.target)), "inplace", False)
        silu = _is_silu(act, owner) and not in_place
        if not (silu or _is_gelu(act, owner)) or not _are_halves(value, act.args[0]):
            continue
        if not any(_writes(other, owner) for other in nodes[nodes.index(act) + 1 : nodes.index(product)]):
            return SWIGLU if silu else GEGLU, str(act.target) if act.op == "call_module" else None
    return None


def _is_gelu(node: fx.Node, owner: nn.Module) -> bool:
    if node.op == "call_module":
        act = owner.get_submodule(str(node.target))
        return type(act) is nn.GELU and act.approximate == "none" and len(node.args) == 1 and not node.kwargs
    plain = node.kwargs.get("approximate", "none") == "none"
    return node.op == "call_function" and node.target is F.gelu and len(node.args) == 1 and plain


def _are_halves(value: fx.Node, gate: Any) -> bool:
    """Returns whether two nodes are the halves of one tensor's last dimension, as `chunk` cuts it."""
    if not isinstance(gate, fx.Node) or not (value.target is gate.target is operator.getitem):
        return False
    (cut, first), (same, second) = value.args, gate.args
    if cut is not same or (first, second) != (0, 1) or not isinstance(cut, fx.Node):
        return False
    given = [*cut.args[1:], *cut.kwargs.values()]
    return (cut.target is torch.chunk or (cut.op == "call_method" and cut.target == "chunk")) and given == [
        2,
        -1,
    ]


def _writes(node: fx.Node, owner: nn.Module) -> bool:
    """Returns whether a call may write into a tensor that was there before."""
    if node.op == "call_method":
        return writes_in_place(node.target)
    if node.op == "call_function":
        return bool(
            writes_in_place(node.target) or node.kwargs.get("inplace") or node.kwargs.get("out") is not None
        )
    if node.op == "call_module":
        below = owner.get_submodule(str(node.target)).modules()
        return any(getattr(part, "inplace", False) or not _is_of_torch(part) for part in below)
    return False


def _is_of_torch(module: nn.Module) -> bool:
    return own_class(module).__module__.startswith("torch.nn.")
