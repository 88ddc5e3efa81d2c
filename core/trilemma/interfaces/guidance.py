"""Guidance: which evaluations a row needs, and how they combine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trilemma.errors import UsageError, shown
from trilemma.interfaces.denoiser import Denoiser
from trilemma.registry.manager import registered_name
from trilemma.registry.options import WithOptions
from trilemma.registry.recording import ADDED_LATER

# Names of the conditions that the null of a guidance drops: one, or a sequence of them; () for all.
Drop = str | Sequence[str]

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Branch:
    """One evaluation of a network under conditions of its own.

    Attributes:
        cond: conditions by name; None stands for the null condition.
        network: the network that is evaluated: the model itself, or one that a guidance brings.
    """

    cond: Mapping[str, Any]
    network: Denoiser


class BoundGuidance(ABC):
    """A guidance of one model, under conditions, on a grid of times.

    A combination that is linear writes `weights`, and the engine folds them into its rows. Any other sets
    `linear = False` and writes `combine`. Branches after the last one that has a weight are not evaluated, and the
    sample does not pay for them.

    Attributes:
        branches: the evaluations, all in one batch; the first gives the prediction that is guided.
        linear: whether the combination is Σ_g w_g·prediction_g.
        uncapturable: why the combination cannot be part of a CUDA graph; "" where it can.
    """

    branches: tuple[Branch, ...]
    linear: bool = True
    uncapturable: str = ""

    @property
    def model(self) -> Denoiser:
        """The network that is guided."""
        return self.branches[0].network

    def weights(self, t: float) -> tuple[float, ...]:
        """Returns w_g of prediction = Σ_g w_g·prediction_g at time t, one a branch."""
        raise NotImplementedError(f"{type(self).__name__} is linear but writes no weights")

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        """Returns the combined prediction [B, ...], in the model's parameterization.

        Args:
            z: states [B, ...], not to be written to.
            t: time.
            predictions: one [B, ...] a branch that is evaluated at this time, in the model's parameterization.
            targets: see `targets`, of the same samples.
        """
        if not self.linear:
            raise NotImplementedError(f"{type(self).__name__} is not linear but writes no combine")
        weights = self.weights(t)[: len(predictions)]
        total = weights[0] * predictions[0]
        for weight, prediction in zip(weights[1:], predictions[1:], strict=True):
            total = total + weight * prediction
        return total

    def evaluated(self, t: float) -> int:
        """Returns how many branches, from the first on, are evaluated at time t: up to the last with a weight."""
        if not self.linear:
            return len(self.branches)
        return max((g + 1 for g, w in enumerate(self.weights(t)) if w != 0), default=1)

    def own_evaluations(self, t: float) -> int:
        """Returns how many evaluations of the model `combine` makes by itself at time t; a sample pays them too."""
        return 0

    def targets(self, indices: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the data that `combine` needs about the samples `indices` [B], as tensors [B, ...] by name.

        Args:
            indices: of the samples, int64.
            cond: conditions [B] of the first branch, as the network takes them.
        """
        return {}


class Weighted(BoundGuidance):
    """Σ_g w_g(t)·prediction_g.

    Args:
        branches: the evaluations.
        weights: w_g, one a branch; a function of the time where they depend on it.
    """

    def __init__(
        self, branches: Sequence[Branch], weights: Sequence[float] | Callable[[float], tuple[float, ...]]
    ) -> None:
        self.branches = tuple(branches)
        fixed = None if callable(weights) else tuple(weights)
        self._weights = (lambda t: fixed) if fixed is not None else weights

    def weights(self, t: float) -> tuple[float, ...]:
        found: tuple[float, ...] = self._weights(t)  # type: ignore[operator]
        return found


class Guidance(WithOptions, ABC):
    """Combines the predictions of several branches into one. Write it as a frozen dataclass of its options.

    Attributes:
        neutral_scale: value of the option `scale` at which it guides nothing; None where there is none.
        compound: whether it consists of other guidances.
    """

    neutral_scale: float | None = 1.0
    compound: bool = False

    @abstractmethod
    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        """Returns this guidance of a model, under conditions, on a grid.

        Args:
            model: the network that is guided.
            cond: conditions by name, as they were asked for; not to be written to.
            times: of the grid, float64 [steps + 1].

        Raises:
            UsageError: where it cannot guide this model under these conditions.
        """

    def terms(self) -> list[tuple[Guidance, tuple[str, ...]]]:
        """Returns the guidances that a spec joins by + to write this one, each with the names of the options that +
        implies."""
        return [(self, ())]


@dataclass(frozen=True, kw_only=True)
class FromNull(Guidance):
    """A guidance away from the null of conditions, as classifier-free guidance is.

    Args:
        drop: names of the conditions that the null drops, one or several; the others stay in it. By default it drops
            all that are given.
    """

    drop: Drop = field(default=(), metadata={ADDED_LATER: True})

    def __post_init__(self) -> None:
        super().__post_init__()
        names = _names(self.drop)
        for name in names:
            if not name.isidentifier() or len(name) > _LONGEST_NAME:
                kind = registered_name(type(self), "guidance")
                raise UsageError(
                    f"{kind}: drop={shown(name)} is no name of a condition; give one, or a list of them"
                )
        object.__setattr__(self, "drop", names)

    def branches(self, model: Denoiser, cond: Mapping[str, Any]) -> tuple[Branch, Branch]:
        """Returns the branches under the conditions and under the null.

        Raises:
            UsageError: where there is no condition to guide to, or no null to guide from.
        """
        needs_null(registered_name(type(self), "guidance"), model, cond, self.drop)
        return condition_and_none(model, cond, self.drop)


@dataclass(frozen=True)
class Unguided(Guidance):
    """The model's own prediction."""

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        return unguided(model, cond)


def unguided(model: Denoiser, cond: Mapping[str, Any]) -> BoundGuidance:
    """Returns the plain prediction as a guidance: one branch, whose weight is 1."""
    return Weighted([Branch(dict(cond), model)], (1.0,))


def towards_condition(
    model: Denoiser,
    cond: Mapping[str, Any],
    weights: Sequence[float] | Callable[[float], tuple[float, ...]],
    drop: Drop = (),
) -> BoundGuidance:
    """Returns the guidance w_0 f(cond) + w_1 f(∅) of a model, by its prediction under no condition.

    Args: those of `condition_and_none`, and the weights.
    """
    return Weighted(condition_and_none(model, cond, drop), weights)


def condition_and_none(model: Denoiser, cond: Mapping[str, Any], drop: Drop = ()) -> tuple[Branch, Branch]:
    """Returns the branches of classifier-free guidance: one under the conditions, one under the null.

    Args:
        model: the network of both.
        cond: conditions by name.
        drop: names of the conditions that the null drops; the others stay as they are. None of them stands for all.
    """
    dropped = _names(drop) or tuple(cond)
    null = {name: None if name in dropped else value for name, value in cond.items()}
    return Branch(dict(cond), model), Branch(null, model)


def needs_null(name: str, denoiser: Denoiser, cond: Mapping[str, Any], drop: Drop = ()) -> None:
    """Raises UsageError where a guidance of this name has no condition to guide to, or no null to guide from.

    Args:
        name: of the guidance, for the message.
        denoiser, cond, drop: as `condition_and_none` takes them.
    """
    conditions = denoiser.conditions
    if not conditions:
        raise UsageError(
            f"{name} needs a conditional model and this one takes no condition; leave guidance out"
        )
    given = [condition for condition, value in cond.items() if value is not None]
    if not given:
        raise UsageError(
            f"{name} needs a condition to guide to; give cond for one of: {', '.join(conditions)}"
        )
    for dropped in _names(drop) or given:
        if dropped not in given:
            raise UsageError(
                f"{name}: drop={dropped!r} is none of the conditions that are given; choose from {', '.join(given)}"
            )
        if dropped in conditions and not conditions[dropped].has_null:
            raise UsageError(
                f"{name} needs a null and condition {dropped!r} has none; leave guidance out, or drop others"
            )


def _names(drop: Drop) -> tuple[str, ...]:
    return (drop,) if isinstance(drop, str) else tuple(drop)
