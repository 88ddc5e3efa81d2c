"""`fuse` and `unfuse`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.fusion.convolving import Convolved, fits
from trilemma.fusion.patterns import AttentionCalls, normalised
from trilemma.fusion.replacement import Replacement
from trilemma.fusion.report import Fused, FusionReport, Left
from trilemma.fusion.rewriting import CannotTrace, Rewritten, rewrite
from trilemma.ops.operator import OPERATORS


def fuse(module: nn.Module) -> FusionReport:
    """Swaps GroupNorm (+ AdaGN, SiLU), attention and 3×3 convolutions of any network for the engine's operators.

    The forward of each submodule that owns such a pattern is replaced by one that calls the operators; modules,
    parameters and their names stay the very same, and `unfuse` takes the replacement away. A forward that cannot be
    traced keeps running as it is: its own normalisations are then swapped one by one, and where it attends, itself or
    through a processor (diffusers), its calls of `scaled_dot_product_attention` are caught. A submodule that is called
    with other arguments or in another mode than it was traced for runs its own forward.

    3×3 convolutions are swapped on the CPU, for inference: the transformed filters and a copy of the weights to compare
    with take five times their memory, and are made anew where the weights have changed.

    Args:
        module: the network; changed in place.

    Returns:
        What was replaced, and what was left and why.
    """
    report = FusionReport()
    missing = {name: OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")}
    for name, why in missing.items():
        if why:
            report.left.append(Left("", f"{name} has no native kernel here: {why}"))
    if any(missing.values()):
        return report
    for name, owner in module.named_modules():
        if "forward" not in vars(owner):
            _fuse_one(name, owner, report)
    return report


def unfuse(module: nn.Module) -> None:
    """Takes away what `fuse` did; a network that was not fused stays as it is."""
    for owner in module.modules():
        if isinstance(vars(owner).get("forward"), Replacement):
            del owner.__dict__["forward"]


def _fuse_one(name: str, owner: nn.Module, report: FusionReport) -> None:
    if type(owner) is nn.Conv2d:
        if fits(owner):
            _replace(owner, Convolved(owner))
            report.fused.append(Fused(name, "3×3 convolution"))
        return
    norms = {child: part for child, part in owner.named_children() if type(part) is nn.GroupNorm}
    attends = callable(getattr(owner, "processor", None)) or _mentions_attention(owner)
    if not norms and not attends:
        return
    try:
        rewritten = rewrite(owner)
    except CannotTrace as error:
        if attends:
            _replace(owner, _AttentionCaught(owner))
            report.fused.append(Fused(name, "attention"))
        else:
            report.left.append(Left(name, f"its forward cannot be traced ({error})"))
    else:
        if rewritten.patterns:
            _replace(owner, _Traced(owner, rewritten))
            report.fused.extend(Fused(name, pattern) for pattern in rewritten.patterns)
        return
    for child, norm in norms.items():
        if norm.weight is not None:
            _replace(norm, _Normalised(norm))
            report.fused.append(Fused(f"{name}.{child}" if name else child, "GroupNorm"))


def _mentions_attention(owner: nn.Module) -> bool:
    code = getattr(type(owner).forward, "__code__", None)
    return code is not None and "scaled_dot_product_attention" in code.co_names


def _replace(owner: nn.Module, replacement: Replacement) -> None:
    owner.__dict__["forward"] = replacement  # before the class's own, which `unfuse` uncovers


class _Normalised(Replacement):
    owner: nn.GroupNorm

    def __call__(self, x: Tensor) -> Tensor:
        return normalised(self.owner, x)


class _AttentionCaught(Replacement):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.own(*args, **kwargs)
        with AttentionCalls():
            return self.own(*args, **kwargs)


class _Traced(Replacement):
    def __init__(self, owner: nn.Module, rewritten: Rewritten) -> None:
        super().__init__(owner)
        self.training = owner.training
        self.parameters = rewritten.parameters
        self.rewritten: Callable[..., Any] = rewritten.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        expected = self.owner.training == self.training and len(args) + len(kwargs) == len(self.parameters)
        expected = expected and set(kwargs) <= set(self.parameters[len(args) :])
        if expected and all(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return self.rewritten(*args, **kwargs)
        return self.own(*args, **kwargs)
