"""`fuse` and `unfuse`."""

from __future__ import annotations

from typing import cast

from torch import nn

from trilemma.models.fusion.attending import Attending, mentions_attention
from trilemma.models.fusion.convolving import Convolved, why_not_convolved
from trilemma.models.fusion.leaving import left, why_alone, why_patched
from trilemma.models.fusion.matching import Found, find
from trilemma.models.fusion.normalizing import Normalized, Owner, why_not_normalized
from trilemma.models.fusion.report import Fused, FusionReport, Left
from trilemma.models.fusion.swapping import Swapped, own_class, swap, unswap
from trilemma.models.fusion.tracing import CannotTrace, trace
from trilemma.ops.operator import OPERATORS


def fuse(module: nn.Module) -> FusionReport:
    """Swaps GroupNorm (+ AdaGN, SiLU), attention and 3×3 convolutions of any network for the engine's operators.

    Each submodule that such a pattern belongs to gets a class of its own in front of its class, whose forward calls the
    operators; modules, parameters and their names stay the very same, and `unfuse` gives the classes back. The forwards
    of the network itself keep running as they are written. A normalisation waits to be computed together with the
    modulation and the activation that follow it, where a trace of its owner's forward shows that nothing else follows;
    and `scaled_dot_product_attention` is caught where a forward attends, itself or through a processor (diffusers).
    Nothing about the network is cached: the next call sees its later changes and its hooks. Under
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
    modules = list(module.named_modules())
    passed = _Pass(report)
    for name, owner in modules:
        if not isinstance(owner, Swapped):
            passed.fuse(name, owner)
    passed.tell_of_norms()
    report.left.extend(left(modules, passed.attention))
    return report


def unfuse(module: nn.Module) -> None:
    """Takes away what `fuse` did; a network that was not fused stays as it is."""
    for owner in module.modules():
        unswap(owner)
        for name in ("followed_by", "kept"):
            vars(owner).pop(name, None)


class _Pass:
    """One pass over the modules of a network, owners before what they own.

    Attributes:
        attention: by the identity of a module, why its attention stays as it is written.
    """

    def __init__(self, report: FusionReport) -> None:
        self._report = report
        self._norms: list[tuple[str, nn.Module, str, Normalized, str]] = []
        self._swapped: set[int] = set()
        self.attention: dict[int, str] = {}

    def fuse(self, name: str, owner: nn.Module) -> None:
        if why := why_patched(owner):
            if _attends(owner):
                self.attention[id(owner)] = why
        elif isinstance(owner, nn.Conv2d):
            if not why_not_convolved(owner):
                swap(owner, Convolved)
                self._report.fused.append(Fused(name, "3×3 convolution"))
        elif isinstance(owner, nn.GroupNorm):
            # One that no traced owner holds.
            if not why_not_normalized(owner):
                swap(owner, Normalized)
                self._report.fused.append(Fused(name, "GroupNorm"))
        elif type(owner) not in (nn.ModuleList, nn.ModuleDict):
            self._fuse_owner(name, owner)

    def _fuse_owner(self, name: str, owner: nn.Module) -> None:
        norms = {child: part for child, part in owner.named_children() if own_class(part) is nn.GroupNorm}
        attends = _attends(owner)
        if not norms and not attends:
            return
        try:
            found = find(trace(owner), owner)
        except CannotTrace as error:
            found = Found()
            if not attends:
                self._report.left.append(Left(name, f"its forward cannot be traced ({error})"))
        if found.attention or (attends and not found.unfit):
            swap(owner, Attending)
            self._report.fused += [Fused(name, "attention")] * max(1, found.attention)
        else:
            if found.norms:
                swap(owner, Owner)
            if found.unfit:
                self.attention[id(owner)] = found.unfit[0]
        for child, norm in norms.items():
            self._fuse_norm(name, owner, child, norm, found)

    def _fuse_norm(self, name: str, owner: nn.Module, child: str, norm: nn.Module, found: Found) -> None:
        followed_by = (child, found.norms[child]) if child in found.norms else None
        if isinstance(norm, Normalized):
            # Its owners must go on alike.
            norm.followed_by = followed_by if norm.followed_by == followed_by else None
        elif why_patched(norm) or why_not_normalized(norm):
            return
        else:
            swap(norm, Normalized)
            self._swapped.add(id(norm))
            cast(Normalized, norm).followed_by = followed_by
        if id(norm) in self._swapped:
            self._norms.append((name, owner, child, cast(Normalized, norm), found.patterns.get(child, "")))

    def tell_of_norms(self) -> None:
        """Reports each normalisation with the operations it is computed with, now that all owners are known."""
        for name, owner, child, norm, pattern in self._norms:
            followed_by = norm.followed_by
            activation = owner._modules.get(followed_by[1] or "") if followed_by else None
            if followed_by and not why_alone(norm, activation):
                self._report.fused.append(Fused(name, pattern))
            else:
                self._report.fused.append(Fused(f"{name}.{child}" if name else child, "GroupNorm"))


def _attends(owner: nn.Module) -> bool:
    return callable(getattr(owner, "processor", None)) or mentions_attention(type(owner))
