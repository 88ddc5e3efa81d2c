"""The level of noise on an image that a network is told, as a scalar condition: λ = log(1/s² − 1)."""

from __future__ import annotations

import torch

from trilemma.checks import checked_number
from trilemma.errors import UsageError
from trilemma.interfaces.condition.scalar import ScalarCondition
from trilemma.numerics.noise_levels import level_of, log_snr_of


def most_noise(condition: ScalarCondition) -> float:
    """Returns the largest s that a network is trained with: that of the least λ."""
    return float(level_of(torch.tensor(condition.low, dtype=torch.float64)))


def told_log_snr(condition: ScalarCondition, noise: float, where: str = "") -> float:
    """Returns λ as a network is told it for noise s: the highest that it knows for less noise than that.

    Args:
        condition: of the level.
        noise: s.
        where: what error messages begin with, such as "stage 2: ".

    Raises:
        UsageError: for a level beyond `most_noise`, or none.
    """
    s = checked_number(noise, f"{where}noise", 0, 1)
    most = most_noise(condition)
    if s > most + 1e-9:
        raise UsageError(
            f"{where}noise={s:g} is beyond what its model was trained with; give at most {most:.4g}"
        )
    log_snr = float(log_snr_of(torch.tensor(s, dtype=torch.float64)))
    return min(max(log_snr, condition.low), condition.high)
