"""`fuse` and `unfuse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from trilemma.models.fusion.attending import Attending, mentions_attention
from trilemma.models.fusion.convolving import Convolved, why_not_convolved
from trilemma.models.fusion.gating import mentions_gates
from trilemma.models.fusion.kinds import is_norm, kind_of
from trilemma.models.fusion.leaving import left, why_alone, why_patched
from trilemma.models.fusion.matching import Found, find, norms_of, waits_in
from trilemma.models.fusion.normalizing import (
    LayerNormalized,
    Normalized,
    Owner,
    at,
    why_not_normalized,
)
from trilemma.models.fusion.recording import record_first_call, recording
from trilemma.models.fusion.report import ATTENTION, CONVOLUTION, Fused, FusionReport, Left
from trilemma.models.fusion.swapping import Swapped, swap, unswap
from trilemma.models.fusion.tracing import CannotTrace, may_be_given, trace
from trilemma.ops import choice
from trilemma.ops.operator import OPERATORS

# A call of a network: its arguments by place or by name, one tensor, or a function that calls it.
Example = Tensor | tuple[Any, ...] | Mapping[str, Any] | Callable[[], object]


def fuse(module: nn.Module, *, example: Example | None = None) -> FusionReport:
    """Swaps norms, gates, attention and 3×3 convolutions of any network for the engine's operators.

    Norms are GroupNorm, with the scale and shift and the SiLU that follow it, and LayerNorm that a scale and shift
    follow; gates are GEGLU and SwiGLU. Each is left to PyTorch where that is as fast.

    Each submodule that such a pattern belongs to gets a class of its own, whose forward calls the operators; modules,
    parameters and their names stay the very same, and `unfuse` gives the classes back. The forwards of the network
    itself, and those of subclasses of GroupNorm, LayerNorm and Conv2d, keep running as they are written. A
    normalisation waits to be computed together with the modulation and the activation that follow it, where a trace of
    its owner's forward shows that nothing else follows; and `scaled_dot_product_attention` is caught where a forward
    attends, itself or through a processor (diffusers) or a table of functions (transformers). Nothing about the network
    is cached: the next call sees its later changes and its hooks. Under transforms of `torch.func`, in forward-mode
    derivatives and while it is traced or exported everything runs as it is written.

    3×3 convolutions are swapped on the CPU, for inference: the transformed filters take four times the weights' memory,
    and are made anew where the weights have changed. A write past autograd (`.data`, NumPy) is seen where it
    reaches one of a few elements of each output channel.

    Args:
        module: the network; changed in place.
        example: arguments to call the network with once, without gradients: a tensor, a tuple, or a mapping of names;
            or a function that calls it or a part of it. It fills in `ran` and `as_written` of the report; without
            one the network's first call does.

    Returns:
        What was replaced, what was left and why, and what ran.
    """
    choice.in_force()
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
    passed.fuse_norms()
    report.left.extend(left(modules, passed.why_left))
    if example is not None:
        try:
            with recording(module, (report,)):
                _run(module, example)
        except BaseException:
            unfuse(module)
            raise
    elif report.fused:
        record_first_call(module, report)
    return report


def unfuse(module: nn.Module) -> None:
    """Takes away what `fuse` did; a network that was not fused stays as it is."""
    for owner in module.modules():
        while isinstance(owner, Swapped):
            unswap(owner)
        for name in ("_trilemma_following", "_trilemma_kept", "_trilemma_reports"):
            vars(owner).pop(name, None)


def _run(module: nn.Module, example: Example) -> None:
    if callable(example):
        example()
        return
    with torch.no_grad():
        if isinstance(example, Mapping):
            module(**example)
        else:
            module(*([example] if isinstance(example, Tensor) else example))


class _Pass:
    """One pass over the modules of a network, owners before what they own.

    Attributes:
        why_left: by the identity of a module, why its attention or its activations stay as they are written.
    """

    def __init__(self, report: FusionReport) -> None:
        self._report = report
        self._norms: dict[int, tuple[str, nn.Module]] = {}
        self._patterns: list[tuple[str, nn.Module, Found]] = []
        self.why_left: dict[int, str] = {}

    def fuse(self, name: str, owner: nn.Module) -> None:
        if why := why_patched(owner):
            if _attends(owner):
                self.why_left[id(owner)] = why
        elif isinstance(owner, nn.Conv2d):
            if not why_not_convolved(owner):
                swap(owner, Convolved)
                self._report.fused.append(Fused(name, CONVOLUTION))
        elif is_norm(owner):
            if not why_not_normalized(owner):
                self._norms[id(owner)] = (name, owner)
        elif type(owner) not in (nn.ModuleList, nn.ModuleDict):
            self._fuse_owner(name, owner)

    def _fuse_owner(self, name: str, owner: nn.Module) -> None:
        norms, attends = norms_of(owner), _attends(owner)
        if not norms and not attends and not mentions_gates(type(owner)):
            return
        try:
            found = _found(owner)
        except CannotTrace as error:
            found = Found()
            why = f"its forward cannot be traced ({error})"
            for norm in norms.values():
                if kind_of(norm).alone:
                    self.why_left.setdefault(id(norm), f"in the module that holds it: {why}")
            if any("." not in path and not kind_of(norm).alone for path, norm in norms.items()):
                self._tell_of_activations(owner, why)
                if not attends:
                    self._report.left.append(Left(name, why))
        following = [
            (tuple(path.split(".")), None if activation is None else tuple(activation.split(".")))
            for path, activation in found.norms.items()
            if not why_patched(norms[path]) and not why_not_normalized(norms[path]) and waits_in(norms[path])
        ]
        gates = [] if OPERATORS["glu"].why_not_native() else found.gates
        if found.attention or (attends and not found.unfit):
            swap(owner, Attending)
            self._report.fused += [Fused(name, ATTENTION)] * max(1, found.attention)
        elif following or gates:
            swap(owner, Owner)
        if found.unfit and not found.attention:
            self.why_left[id(owner)] = found.unfit[0]
        if gates:
            paths = tuple(None if path is None else tuple(path.split(".")) for _, path in gates)
            cast(Owner, owner)._trilemma_gates = paths
            self._report.fused += [Fused(name, pattern) for pattern, _ in gates]
        if following:
            cast(Owner, owner)._trilemma_following = tuple(following)
            self._patterns.append((name, owner, found))

    def _tell_of_activations(self, owner: nn.Module, why: str) -> None:
        for child in owner.children():
            if isinstance(child, nn.SiLU):
                self.why_left.setdefault(id(child), f"in the module that holds it: {why}")

    def fuse_norms(self) -> None:
        """Swaps each normalisation, now that all owners are known, and reports what it is computed with."""
        told = set()
        for name, owner, found in self._patterns:
            for path, activation in cast(Owner, owner)._trilemma_following:
                norm = cast(nn.Module, at(owner, path))
                act = None if activation is None else at(owner, activation)
                if id(norm) in self._norms and not why_alone(norm, act):
                    told.add(id(norm))
                    self._report.fused.append(Fused(name, found.patterns[".".join(path)]))
        for name, norm in self._norms.values():
            kind = kind_of(norm)
            if id(norm) not in told:
                if kind.alone:
                    self.why_left.setdefault(id(norm), kind.alone)
                    continue
                self._report.fused.append(Fused(name, kind.pattern))
            swap(norm, Normalized if isinstance(norm, nn.GroupNorm) else LayerNormalized)


def _found(owner: nn.Module) -> Found:
    """The patterns of a forward; where it needs one of the arguments that may be left out, those of its normalisations.

    Raises:
        CannotTrace: where it cannot be traced.
    """
    try:
        return find(trace(owner), owner)
    except CannotTrace as error:
        for name in may_be_given(owner):
            try:
                found = find(trace(owner, (name,)), owner)
            except CannotTrace:
                continue
            # Attention may look otherwise: what is given may be a mask.
            return Found(found.patterns, found.norms)
        raise error


def _attends(owner: nn.Module) -> bool:
    return callable(getattr(owner, "processor", None)) or mentions_attention(type(owner))
