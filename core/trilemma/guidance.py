"""What guidance is: which evaluations a step needs and how they combine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from trilemma.denoiser import Denoiser


class Guidance(ABC):
    """Combines the predictions of several branches, all evaluated in one batch, into one.

    A combination that is linear writes `weights`, and the engine folds them into the step. Any other sets
    `linear = False` and writes `combine`.
    """

    linear: bool = True

    @abstractmethod
    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The conditions of each branch; None stands for the null condition."""

    def weights(self, t: float) -> tuple[float, ...]:
        """w_g of prediction = Σ_g w_g·prediction_g at time t, one a branch."""
        raise NotImplementedError(f"{type(self).__name__} is linear but writes no weights")

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        """The combined prediction [B, ...], in the denoiser's parameterization.

        Args:
            z: state [B, ...], not to be written to.
            t: time.
            predictions: one [B, ...] a branch, in the denoiser's parameterization.
            denoiser: for its process and parameterization.
        """
        raise NotImplementedError(f"{type(self).__name__} is not linear but writes no combine")

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        """Raises UsageError where this guidance cannot guide this model with these conditions."""
        return


class Unguided(Guidance):
    """The model's own prediction."""

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,)
