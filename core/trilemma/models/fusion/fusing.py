"""`fuse` and `unfuse`."""

from __future__ import annotations

from torch import nn

from trilemma.models.fusion.attending import Attending
from trilemma.models.fusion.convolving import Convolved, fits
from trilemma.models.fusion.matching import Found, find
from trilemma.models.fusion.normalizing import Normalized, Owner
from trilemma.models.fusion.report import Fused, FusionReport, Left
from trilemma.models.fusion.swapping import Swapped, own_class, swap, unswap
from trilemma.models.fusion.tracing import CannotTrace, trace
from trilemma.ops.operator import OPERATORS


def fuse(module: nn.Module) -> FusionReport:
    """Swaps GroupNorm (+ AdaGN, SiLU), attention and 3×3 convolutions of any network for the engine's operators.

    Each submodule that such a pattern belongs to gets a class of its own in front of its class, whose forward calls the
    operators; modules, parameters and their names stay the very same, and `unfuse` gives the classes back. The forwards
    of the network itself keep running as they are written. A normalisation alone waits to be computed with the
    modulation and the activation that follow it, where a trace of its owner's forward says that nothing else does; and
    `scaled_dot_product_attention` is caught where a forward attends, itself or through a processor (diffusers).
    Nothing is remembered of the network: what changes in it later, and hooks, are seen by the next call. Under
    transforms of `torch.func` and in forward-mode derivatives everything runs as it is written.

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
    for name, owner in list(module.named_modules()):
        if "forward" not in vars(owner) and not isinstance(owner, Swapped):
            _fuse_one(name, owner, report)
    return report


def unfuse(module: nn.Module) -> None:
    """Takes away what `fuse` did; a network that was not fused stays as it is."""
    for owner in module.modules():
        unswap(owner)
        for name in ("followed_by", "kept"):
            vars(owner).pop(name, None)


def _fuse_one(name: str, owner: nn.Module, report: FusionReport) -> None:
    if type(owner) is nn.Conv2d:
        if fits(owner):
            swap(owner, Convolved)
            report.fused.append(Fused(name, "3×3 convolution"))
        return
    norms = {child: part for child, part in owner.named_children() if own_class(part) is nn.GroupNorm}
    attends = callable(getattr(owner, "processor", None)) or _mentions_attention(owner)
    if not norms and not attends:
        return
    try:
        found = find(trace(owner), owner)
    except CannotTrace as error:
        found = Found()
        if not attends:
            report.left.append(Left(name, f"its forward cannot be traced ({error})"))
    patterns = list(found.patterns.values())
    if attends or found.attention:
        swap(owner, Attending)
        patterns += ["attention"] * max(1, found.attention)
    elif found.norms:
        swap(owner, Owner)
    report.fused.extend(Fused(name, pattern) for pattern in patterns)
    for child, norm in norms.items():
        if type(norm) is nn.GroupNorm and norm.weight is not None and "forward" not in vars(norm):
            swap(norm, Normalized)
            if child not in found.patterns:
                report.fused.append(Fused(f"{name}.{child}" if name else child, "GroupNorm"))
        if isinstance(norm, Normalized):
            norm.followed_by = (child, found.norms[child]) if child in found.norms else None


def _mentions_attention(owner: nn.Module) -> bool:
    code = getattr(type(owner).forward, "__code__", None)
    return code is not None and "scaled_dot_product_attention" in code.co_names
