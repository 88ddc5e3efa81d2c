"""Guidance that keeps the standard deviation of the plain prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Modified, Modifier
from trilemma.interfaces.guidance import BoundGuidance


@dataclass(frozen=True)
class Rescale(Modifier):
    """(φ·std(f)/std(D) + 1 − φ)·D: the guided prediction D with the standard deviation of the plain one, f.

    Each sample has its own standard deviation, over all its values. As in the paper it is that of the network's own
    output, so that the result depends on the parameterization. The rescaling is not linear and costs a pass of its own.

    Args:
        phi: φ in [0, 1]; 0 changes nothing.

    Raises:
        UsageError: for another φ.

    References:
        Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891, section 3.4.
    """

    phi: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.phi <= 1:
            raise UsageError(f"rescale: phi={self.phi!r} is out of range; give a number from 0 to 1")

    def modify(self, bound: BoundGuidance) -> BoundGuidance:
        return Rescaled(bound, self.phi) if self.phi else bound


class Rescaled(Modified):
    """(φ·std(f)/std(D) + 1 − φ)·D of a bound guidance D.

    Args:
        guidance: D.
        phi: φ.
    """

    def __init__(self, guidance: BoundGuidance, phi: float) -> None:
        super().__init__(guidance)
        self.phi, self.linear = phi, False

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        guided = self.guidance.combine(z, t, predictions, targets)
        wanted, found = (_spread(prediction) for prediction in (predictions[0], guided))
        ratio = (wanted / found).where(found > 0, 1.0)
        return guided * (1 + self.phi * (ratio - 1))


def _spread(prediction: Tensor) -> Tensor:
    """Standard deviation of each sample, [B, 1, ...]."""
    return prediction.std(dim=tuple(range(1, prediction.dim())), correction=0, keepdim=True)
