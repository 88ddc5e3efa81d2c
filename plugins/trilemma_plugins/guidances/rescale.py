"""Guidance that keeps the spread of what it guides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.guiding.composition import Modifier, combination
from trilemma.interfaces.denoiser import Denoiser


@dataclass(frozen=True)
class Rescale(Modifier):
    """(φ·std(f)/std(D) + 1 − φ)·D: the guided prediction D with the standard deviation of the plain one, f.

    Each sample has its own standard deviation, over all its values. Like in the paper it is that of the network's own
    output, so that the result depends on the parameterization; it is not linear and costs its own pass.

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

    @property
    def linear(self) -> bool:
        return self.phi == 0 and self.guidance.linear

    def weights(self, t: float) -> tuple[float, ...]:
        return self.guidance.weights(t)

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        guided = combination(self.guidance, z, t, predictions, denoiser)
        wanted, found = (_spread(prediction) for prediction in (predictions[0], guided))
        ratio = (wanted / found).where(found > 0, 1.0)
        return guided * (1 + self.phi * (ratio - 1))


def _spread(prediction: Tensor) -> Tensor:
    """Standard deviation of each sample, [B, 1, ...]."""
    return prediction.std(dim=tuple(range(1, prediction.dim())), correction=0, keepdim=True)
