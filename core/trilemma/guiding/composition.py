"""Guidances together: sums, and modifiers of what stands to their left."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance, Unguided
from trilemma.interfaces.process import Process


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

    def terms(self) -> list[tuple[Guidance, tuple[str, ...]]]:
        """What is written with + between, each with the options that its place in the sum says; itself where none is.

        A part that is a sum has no such form, nor has a modifier of nothing, which would modify its neighbour.
        """
        parts = [part.terms() if isinstance(part, Modifier) else [(part, ())] for part in self.parts]
        if any(isinstance(part[0][0], Sum | Modifier) for part in parts):
            return [(self, ())]
        return [term for part in parts for term in part]

    @property
    def linear(self) -> bool:
        return all(part.linear for part in self.parts)

    @property
    def uncapturable(self) -> str:
        return next((part.uncapturable for part in self.parts if part.uncapturable), "")

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond), *(branch for part in self.parts for branch in part.branches(cond)[1:])]

    def networks(self, denoiser: Denoiser) -> dict[int, Denoiser]:
        found, offset = {}, 0
        for part in self.parts:
            found.update({offset + g: network for g, network in part.networks(denoiser).items()})
            offset += self._others(part)
        return found

    def weights(self, t: float) -> tuple[float, ...]:
        own = [part.weights(t) for part in self.parts]
        return (1 + sum(w[0] - 1 for w in own), *(entry for w in own for entry in w[1:]))

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        f, offset = predictions[0], 0
        total = f
        for part in self.parts:
            others = self._others(part)
            evaluated = part.evaluated(t, 1 + others)
            given = [f, *predictions[1 + offset : offset + evaluated]]
            total = total + (combination(part, z, t, given, denoiser) - f)
            offset += others
        return total

    def evaluated(self, t: float, branches: int) -> int:
        last, offset = 1, 0
        for part in self.parts:
            others = self._others(part)
            evaluated = part.evaluated(t, 1 + others)
            last = max(last, offset + evaluated if evaluated > 1 else 1)
            offset += others
        return last

    def own_evaluations(self, t: float) -> int:
        return sum(part.own_evaluations(t) for part in self.parts)

    def on_grid(self, process: Process, times: Tensor) -> Guidance:
        return Sum(tuple(part.on_grid(process, times) for part in self.parts))

    def targets(self, cond: Mapping[str, Any], indices: Tensor) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": target
            for i, part in enumerate(self.parts)
            for name, target in part.targets(cond, indices).items()
        }

    def conditions(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": taken
            for i, part in enumerate(self.parts)
            for name, taken in part.conditions(encoded).items()
        }

    def for_batch(self, targets: Mapping[str, Tensor]) -> Guidance:
        def own(i: int) -> dict[str, Tensor]:
            return {name.removeprefix(f"{i}."): t for name, t in targets.items() if name.startswith(f"{i}.")}

        return Sum(tuple(part.for_batch(own(i)) for i, part in enumerate(self.parts)))

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        for part in self.parts:
            part.check(denoiser, cond)

    @staticmethod
    def _others(part: Guidance) -> int:
        """How many branches a guidance has beside the first; it does not depend on the conditions' values."""
        return len(part.branches({})) - 1


@dataclass(frozen=True, kw_only=True)
class Modifier(Guidance):
    """A guidance that changes another's combination and evaluates the same branches.

    Args:
        guidance: what it modifies; in a spec, what stands to its left: cfg:scale=3+interval:lo=0.2.
    """

    guidance: Guidance = field(default_factory=Unguided)

    def terms(self) -> list[tuple[Guidance, tuple[str, ...]]]:
        """What is written with + between, as `Sum.terms`."""
        if self.modifies_nothing:
            return [(self, ("guidance",))]
        before = self.guidance.terms() if isinstance(self.guidance, Modifier | Sum) else [(self.guidance, ())]
        if isinstance(self.guidance, Sum) or isinstance(before[0][0], Modifier | Sum):
            return [(self, ())]
        return [*before, (self, ("guidance",))]

    @property
    def modifies_nothing(self) -> bool:
        """Whether it stands alone."""
        return isinstance(self.guidance, Unguided)

    @property
    def linear(self) -> bool:
        return self.guidance.linear

    @property
    def uncapturable(self) -> str:
        return self.guidance.uncapturable

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.guidance.branches(cond)

    def networks(self, denoiser: Denoiser) -> dict[int, Denoiser]:
        return self.guidance.networks(denoiser)

    def evaluated(self, t: float, branches: int) -> int:
        return self.guidance.evaluated(t, branches)

    def own_evaluations(self, t: float) -> int:
        return self.guidance.own_evaluations(t)

    def on_grid(self, process: Process, times: Tensor) -> Guidance:
        return replace(self, guidance=self.guidance.on_grid(process, times))

    def targets(self, cond: Mapping[str, Any], indices: Tensor) -> dict[str, Tensor]:
        return self.guidance.targets(cond, indices)

    def conditions(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.guidance.conditions(encoded)

    def for_batch(self, targets: Mapping[str, Tensor]) -> Guidance:
        return replace(self, guidance=self.guidance.for_batch(targets))

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if self.modifies_nothing:
            name = type(self).__name__.lower()
            raise UsageError(f"{name} modifies a guidance and has none; write for example cfg:scale=3+{name}")
        self.guidance.check(denoiser, cond)


class Factor(Modifier):
    """f + k(t)·(D − f): a modifier that is a factor of the correction. Where k = 0, only f is evaluated."""

    @abstractmethod
    def factor(self, t: float) -> float:
        """k(t)."""

    def weights(self, t: float) -> tuple[float, ...]:
        inner, k = self.guidance.weights(t), self.factor(t)
        if k == 1:
            return inner
        return (1 + k * (inner[0] - 1), *(k * w for w in inner[1:]))

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        f, k = predictions[0], self.factor(t)
        if k == 0:
            return f
        guided = combination(self.guidance, z, t, predictions, denoiser)
        return guided if k == 1 else f + k * (guided - f)

    def evaluated(self, t: float, branches: int) -> int:
        return 1 if self.factor(t) == 0 else self.guidance.evaluated(t, branches)

    def own_evaluations(self, t: float) -> int:
        return 0 if self.factor(t) == 0 else self.guidance.own_evaluations(t)


def combination(
    guidance: Guidance, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser
) -> Tensor:
    """The combined prediction [B, ...] of any guidance, linear or not, of the branches evaluated at time t."""
    if not guidance.linear:
        return guidance.combine(z, t, predictions, denoiser)
    weights = guidance.weights(t)[: len(predictions)]
    total = weights[0] * predictions[0]
    for weight, prediction in zip(weights[1:], predictions[1:], strict=True):
        total = total + weight * prediction
    return total


def composed(guidances: Sequence[Guidance]) -> Guidance:
    """What a+b+c means: a modifier acts on the guidance to its left, and what is left is summed.

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
