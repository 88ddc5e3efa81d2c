"""The modules of a known kind that fusing left as they are, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from trilemma.models.fusion.attending import Attending
from trilemma.models.fusion.convolving import Convolved, why_not_convolved
from trilemma.models.fusion.kinds import is_norm, kind_of
from trilemma.models.fusion.normalizing import LayerNormalized, Normalized, at, is_changed, why_not_normalized
from trilemma.models.fusion.report import Left
from trilemma.models.fusion.swapping import own_class

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_NO_OPERATOR = (nn.RMSNorm, nn.GELU)


def left(modules: Sequence[tuple[str, nn.Module]], known: Mapping[int, str]) -> Iterator[Left]:
    """Yields the modules of a known kind that are not fused, by their names, each with the reason.

    Args:
        modules: all of a fused network.
        known: by the identity of a module, why its attention or its activation stays as it is written, as far as known.
    """
    activations, gated = _activations(modules), _gated(modules)
    for name, module in modules:
        if id(module) in gated:
            if is_changed(module):
                yield Left(name, "it has hooks")
        elif why := known.get(id(module)) or _why(module, activations):
            yield Left(name, why)


def why_patched(module: nn.Module) -> str:
    """Returns why a module whose own object has a forward is left; "" for any other."""
    return "its forward was replaced on the object" if "forward" in vars(module) else ""


def why_alone(norm: nn.Module, activation: nn.Module | None) -> str:
    """Returns why a normalisation and the activation that follows it are computed apart; "" where they are not."""
    if is_changed(norm):
        return f"the {kind_of(norm).pattern} before it has hooks"
    if activation is not None and is_changed(activation):
        return "it has hooks"
    return "it works in place" if getattr(activation, "inplace", False) else ""


def _why(module: nn.Module, activations: Mapping[int, nn.Module]) -> str:
    if isinstance(module, nn.SiLU):
        return _why_activation(module, activations.get(id(module)))
    if isinstance(module, Convolved | Normalized | LayerNormalized):
        return ""
    if isinstance(module, _CONVOLUTIONS):
        return why_patched(module) or why_not_convolved(module)
    if is_norm(module):
        return why_patched(module) or why_not_normalized(module)
    if isinstance(module, nn.MultiheadAttention) and not isinstance(module, Attending):
        return "torch's MultiheadAttention does all of it in one call, in which no operator can be put"
    if isinstance(module, _NO_OPERATOR):
        return f"no operator computes {own_class(module).__name__}"
    return ""


def _activations(modules: Sequence[tuple[str, nn.Module]]) -> dict[int, nn.Module]:
    """The normalisation that each activation is computed with, by the activation's identity."""
    found: dict[int, nn.Module] = {}
    for _, owner in modules:
        for path, activation in getattr(owner, "_trilemma_following", ()):
            norm = at(owner, path)
            if activation is not None and norm is not None:
                found[id(at(owner, activation))] = norm
    return found


def _gated(modules: Sequence[tuple[str, nn.Module]]) -> set[int]:
    """The identities of the activations that are computed with the product that follows them."""
    return {
        id(at(owner, path))
        for _, owner in modules
        for path in getattr(owner, "_trilemma_gates", ())
        if path is not None
    }


def _why_activation(activation: nn.SiLU, norm: nn.Module | None) -> str:
    own = why_patched(activation)
    if not own and type(activation) is not nn.SiLU:
        own = f"its class is {type(activation).__name__}, not SiLU"
    if own:
        return own
    if norm is None:
        return "it does not follow a GroupNorm in the forward of the same module, or not that alone"
    return why_alone(norm, activation)
