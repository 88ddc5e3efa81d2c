"""Fixed features of points in the plane, in which distances see more than two moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.metric import Observation
from trilemma_plugins.points.law import Layout, laid_out

MOST_MODES = 10_000
MOST_FREQUENCIES = 100_000
MOST_SEED = 2**32 - 1


class PointsFeatures:
    """The coordinates beside random Fourier features, and the modes as classes.

        f(x) = [x, √(2/D) cos(ω_i · x + φ_i)],   ω_i ~ N(0, I/ℓ_i²),   φ_i uniform,   logit_k = −½ ‖x − μ_k‖²/s²

    Half of the D lengths ℓ_i are `length`, half a quarter of it, so that both a lost mode and a blurred one show: the
    mean of the Fourier features is the characteristic function at D points (Rahimi & Recht, 2007).

    Args:
        modes, radius, deviation, layout: as of the data set `mixture2d`.
        frequencies: D, even.
        length: ℓ, in the units of the coordinates.
        seed: of ω and φ.

    Raises:
        UsageError: for an unknown layout or a number out of range.
    """

    def __init__(
        self,
        modes: int = 8,
        radius: float = 0.6,
        deviation: float = 0.04,
        frequencies: int = 64,
        length: float = 0.2,
        seed: int = 0,
        layout: Layout = "ring",
    ) -> None:
        checked_integer(modes, "points-features: modes", 1, MOST_MODES)
        checked_integer(frequencies, "points-features: frequencies", 2, MOST_FREQUENCIES)
        checked_integer(seed, "points-features: seed", 0, MOST_SEED)
        if frequencies % 2 or radius < 0 or not length > 0 or not deviation > 0:
            raise UsageError(
                f"points-features: radius={radius!r}, deviation={deviation!r}, frequencies={frequencies!r}, "
                f"length={length!r}; expected radius ≥ 0, an even number of frequencies, the others above 0"
            )
        self.identity = (
            f"points-features modes={modes},radius={radius},deviation={deviation},frequencies={frequencies},"
            f"length={length},seed={seed}"
        )
        if layout != "ring":
            self.identity += f",layout={layout}"
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.full((frequencies,), length, dtype=torch.float64)
        lengths[frequencies // 2 :] /= 4
        self._waves = torch.randn(2, frequencies, generator=generator, dtype=torch.float64) / lengths
        self._phases = 2 * math.pi * torch.rand(frequencies, generator=generator, dtype=torch.float64)
        self._centres, self._deviation = laid_out(layout, modes, radius), deviation

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape is that of points."""
        return tuple(shape) == (2, 1, 1)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Returns features [B, 2 + D] and logits [B, modes] of points [B, 2, 1, 1] in [-1, 1]."""
        if not self.takes(images.shape[1:]):
            raise TrilemmaError(
                f"points-features takes points of shape (2, 1, 1), got {tuple(images.shape[1:])}; "
                "evaluate with the feature network of the model's data (--features)"
            )
        x = images.flatten(1).to("cpu", torch.float64)
        waves = (x @ self._waves + self._phases).cos() * math.sqrt(2 / len(self._phases))
        logits = -torch.cdist(x, self._centres).square() / (2 * self._deviation**2)
        return Observation(torch.cat([x, waves], 1).float(), logits.float(), labels)
