"""What guidance is: which evaluations a step needs and how they combine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.registry.options import WithOptions


@dataclass(frozen=True)
class Branch:
    cond: Mapping[str, Any]
    network: Denoiser


class BoundGuidance(ABC):
    branches: tuple[Branch, ...]
    linear: bool = True
    uncapturable: str = ""

    def weights(self, t: float) -> tuple[float, ...]:
        raise NotImplementedError

    def combine(self, z, t, predictions, targets):
        raise NotImplementedError

    def evaluated(self, t: float) -> int:
        return 1

    def own_evaluations(self, t: float) -> int:
        return 0

    def targets(self, indices, cond):
        return {}


class _Hooks(BoundGuidance):
    def __init__(self, g, model, cond, times):
        g.check(model, cond)
        self.g = g = g.on_grid(model.process, times)
        nets = g.networks(model)
        self.cond = cond
        self.branches = tuple(Branch(c, nets.get(i, model)) for i, c in enumerate(g.branches(cond)))
        self.linear = g.linear
        self.uncapturable = g.uncapturable
        self.model = model

    def weights(self, t):
        return self.g.weights(t)

    def combine(self, z, t, predictions, targets):
        from trilemma.guiding.composition import combination

        return combination(self.g.for_batch(targets), z, t, predictions, self.model)

    def evaluated(self, t):
        return min(len(self.branches), self.g.evaluated(t, len(self.branches)))

    def own_evaluations(self, t):
        return self.g.own_evaluations(t)

    def targets(self, indices, cond):
        return all_targets(self.g, self.cond, indices, cond)


class Guidance(WithOptions, ABC):
    """Combines the predictions of several branches, all evaluated in one batch, into one.

    A combination that is linear writes `weights`, and the engine folds them into the step. Any other sets
    `linear = False` and writes `combine`. The first branch is the prediction that is guided; where the others have no
    weight they are not evaluated, and the sample does not pay for them.

    Attributes:
        neutral_scale: the value of an option `scale` at which it is no guidance; None where there is none.
    """

    neutral_scale: float | None = 1.0

    def bind(self, model, cond, times):
        return _Hooks(self, model, cond, times)

    @property
    def uncapturable(self) -> str:
        """Why its combination cannot be part of a CUDA graph; "" where it can."""
        return ""

    @property
    def linear(self) -> bool:
        """Whether the combination is Σ_g w_g·prediction_g."""
        return True

    @abstractmethod
    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The conditions of each branch; None stands for the null condition."""

    def networks(self, denoiser: Denoiser) -> dict[int, Denoiser]:
        """Which branches another network evaluates than the model itself, by their number."""
        return {}

    def weights(self, t: float) -> tuple[float, ...]:
        """w_g of prediction = Σ_g w_g·prediction_g at time t, one a branch."""
        raise NotImplementedError(f"{type(self).__name__} is linear but writes no weights")

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        """The combined prediction [B, ...], in the denoiser's parameterization.

        Args:
            z: state [B, ...], not to be written to.
            t: time.
            predictions: one [B, ...] a branch that is evaluated at this time, in the denoiser's parameterization.
            denoiser: for its process and parameterization.
        """
        raise NotImplementedError(f"{type(self).__name__} is not linear but writes no combine")

    def evaluated(self, t: float, branches: int) -> int:
        """How many of the branches, from the first on, are evaluated at time t: up to the last with a weight."""
        if not self.linear:
            return branches
        return max((g + 1 for g, w in enumerate(self.weights(t)) if w != 0), default=1)

    def own_evaluations(self, t: float) -> int:
        """How many evaluations of the denoiser `combine` makes by itself at time t; a sample pays them too."""
        return 0

    def on_grid(self, process: Process, times: Tensor) -> Guidance:
        """This guidance on a grid of times [steps + 1] of a process, where its weights depend on them."""
        return self

    def targets(self, cond: Mapping[str, Any], indices: Tensor) -> dict[str, Tensor]:
        """What `combine` needs to know of the samples `indices` [B], as tensors [B] by name."""
        return {}

    def conditions(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `combine` needs of the conditions [B] of its first branch as the network takes them."""
        return {}

    def for_batch(self, targets: Mapping[str, Tensor]) -> Guidance:
        """This guidance with the targets of the batch that `combine` is called for."""
        return self

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        """Raises UsageError where this guidance cannot guide this model with these conditions."""
        return


@dataclass(frozen=True)
class Unguided(Guidance):
    """The model's own prediction."""

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,)


def all_targets(
    guidance: Guidance, cond: Mapping[str, Any], indices: Tensor, encoded: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns what a guidance is told of the samples `indices` [B]: its targets and conditions."""
    return {**guidance.targets(cond, indices), **guidance.conditions(encoded)}


def needs_null_class(name: str, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
    """Raises UsageError where a guidance of this name has no condition to guide to, or no null class to guide from."""
    conditions = denoiser.conditions
    if not conditions:
        raise UsageError(
            f"{name} needs a conditional model and this one takes no condition; leave guidance out"
        )
    if all(value is None for value in cond.values()):
        raise UsageError(
            f"{name} needs a condition to guide to; give cond for one of: {', '.join(conditions)}"
        )
    for condition in cond:
        if condition in conditions and conditions[condition].null is None:
            raise UsageError(
                f"{name} needs a null class and condition {condition!r} has none; leave guidance out"
            )
