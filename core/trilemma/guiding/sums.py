"""Sums of guidances, and the meaning of a+b+c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Modifier
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Guidance


@dataclass(frozen=True)
class Sum(Guidance):
    """f + Σ_i (D_i − f): every guidance D_i adds its own correction to the prediction f that all of them guide.

    f is evaluated once; the other branches of each guidance follow it. Linear guidances add up to weights,

        w_0 = 1 + Σ_i (w_i0 − 1),

    and the sum is folded into the step as each of them is.

    Args:
        parts: the guidances.
    """

    parts: tuple[Guidance, ...]

    compound = True

    def terms(self) -> list[tuple[Guidance, tuple[str, ...]]]:
        """Returns the guidances that a spec joins by + to write this sum, each with the names of the options that +
        implies.

        A sum that no such spec can write is its only term. That is so where a part is itself a sum, or a modifier of
        nothing, which would modify its neighbour in the spec.
        """
        parts = [part.terms() if isinstance(part, Modifier) else [(part, ())] for part in self.parts]
        if any(part[0][0].compound for part in parts):
            return [(self, ())]
        return [term for part in parts for term in part]

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        return BoundSum([part.bind(model, cond, times) for part in self.parts])


class BoundSum(BoundGuidance):
    """f + Σ_i (D_i − f) of bound guidances.

    Args:
        parts: D_i; the first branch of each is that of f.
    """

    def __init__(self, parts: Sequence[BoundGuidance]) -> None:
        self.parts = tuple(parts)
        self.branches = (parts[0].branches[0], *(branch for part in parts for branch in part.branches[1:]))
        self.linear = all(part.linear for part in parts)
        self.uncapturable = next((part.uncapturable for part in parts if part.uncapturable), "")

    def weights(self, t: float) -> tuple[float, ...]:
        own = [part.weights(t) for part in self.parts]
        return (1 + sum(w[0] - 1 for w in own), *(entry for w in own for entry in w[1:]))

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        if self.linear:
            return super().combine(z, t, predictions, targets)
        f, offset = predictions[0], 0
        total = f
        for i, part in enumerate(self.parts):
            given = [f, *predictions[1 + offset : offset + part.evaluated(t)]]
            total = total + (part.combine(z, t, given, _of_part(i, targets)) - f)
            offset += len(part.branches) - 1
        return total

    def evaluated(self, t: float) -> int:
        last, offset = 1, 0
        for part in self.parts:
            evaluated = part.evaluated(t)
            last = max(last, offset + evaluated if evaluated > 1 else 1)
            offset += len(part.branches) - 1
        return last

    def own_evaluations(self, t: float) -> int:
        return sum(part.own_evaluations(t) for part in self.parts)

    def targets(self, indices: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": target
            for i, part in enumerate(self.parts)
            for name, target in part.targets(indices, cond).items()
        }


def _of_part(i: int, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{i}."
    return {name.removeprefix(prefix): t for name, t in targets.items() if name.startswith(prefix)}


def composed(guidances: Sequence[Guidance]) -> Guidance:
    """Returns the meaning of a+b+c: a modifier acts on the guidance to its left, and the others are summed.

    Raises:
        UsageError: where a modifier comes first.
    """
    parts: list[Guidance] = []
    for guidance in guidances:
        if isinstance(guidance, Modifier) and guidance.modifies_nothing and parts:
            parts[-1] = cast(Guidance, replace(guidance, guidance=parts[-1]))
        else:
            parts.append(guidance)
    first = parts[0]
    if isinstance(first, Modifier) and first.modifies_nothing:
        name = type(first).__name__.lower()
        raise UsageError(
            f"{name} has no guidance to its left to modify; write for example cfg:scale=3+{name}"
        )
    return first if len(parts) == 1 else Sum(tuple(parts))
