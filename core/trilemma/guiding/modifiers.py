"""Modifiers: guidances that change the combination of another one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Guidance, Unguided


@dataclass(frozen=True, kw_only=True)
class Modifier(Guidance):
    """A guidance that changes another's combination and evaluates the same branches.

    Args:
        guidance: the guidance that it modifies; in a spec, the one to its left: cfg:scale=3+interval:lo=0.2.
    """

    guidance: Guidance = field(default_factory=Unguided)

    compound = True

    def terms(self) -> list[tuple[Guidance, tuple[str, ...]]]:
        """Returns the guidances that a spec joins by + to write this one; itself alone where there is no such spec."""
        if self.modifies_nothing:
            return [(self, ("guidance",))]
        before = self.guidance.terms()
        of_a_sum = self.guidance.compound and not isinstance(self.guidance, Modifier)
        if of_a_sum or before[0][0].compound:
            return [(self, ())]
        return [*before, (self, ("guidance",))]

    @abstractmethod
    def modify(self, bound: BoundGuidance) -> BoundGuidance:
        """Returns the modified guidance, such as a `Modified` that writes its own `combine`."""

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if self.modifies_nothing:
            name = type(self).__name__.lower()
            raise UsageError(f"{name} modifies a guidance and has none; write for example cfg:scale=3+{name}")
        return self.modify(self.guidance.bind(model, cond, times))

    @property
    def modifies_nothing(self) -> bool:
        """True where this guidance stands alone and modifies no other."""
        return isinstance(self.guidance, Unguided)


class Modified(BoundGuidance):
    """A bound guidance that behaves as another one, except where a derived class overrides it.

    Args:
        guidance: the other one.
    """

    def __init__(self, guidance: BoundGuidance) -> None:
        self.guidance = guidance
        self.branches = guidance.branches
        self.linear, self.uncapturable = guidance.linear, guidance.uncapturable

    def weights(self, t: float) -> tuple[float, ...]:
        return self.guidance.weights(t)

    def evaluated(self, t: float) -> int:
        return self.guidance.evaluated(t)

    def own_evaluations(self, t: float) -> int:
        return self.guidance.own_evaluations(t)

    def targets(self, indices: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.guidance.targets(indices, cond)


class Factor(Modifier):
    """f + k(t)·(D − f): a modifier that is a factor of the correction. Where k = 0, only f is evaluated."""

    @abstractmethod
    def factor(self, t: float) -> float:
        """Returns k(t)."""

    def modify(self, bound: BoundGuidance) -> BoundGuidance:
        return Scaled(bound, self.factor)


class Scaled(Modified):
    """f + k(t)·(D − f) of a bound guidance D.

    Args:
        guidance: D.
        factor: k.
    """

    def __init__(self, guidance: BoundGuidance, factor: Callable[[float], float]) -> None:
        super().__init__(guidance)
        self.factor = factor

    def weights(self, t: float) -> tuple[float, ...]:
        inner, k = self.guidance.weights(t), self.factor(t)
        if k == 1:
            return inner
        return (1 + k * (inner[0] - 1), *(k * w for w in inner[1:]))

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        if self.linear:
            return super().combine(z, t, predictions, targets)
        f, k = predictions[0], self.factor(t)
        if k == 0:
            return f
        guided = self.guidance.combine(z, t, predictions, targets)
        return guided if k == 1 else f + k * (guided - f)

    def evaluated(self, t: float) -> int:
        return 1 if self.factor(t) == 0 else self.guidance.evaluated(t)

    def own_evaluations(self, t: float) -> int:
        return 0 if self.factor(t) == 0 else self.guidance.own_evaluations(t)
