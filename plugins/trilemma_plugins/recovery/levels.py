"""The transitions of recovery likelihood, and the steps of the chains that run in each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.interfaces.process import Process


@dataclass(frozen=True)
class Transition:
    """From a state z̃ at time t to states z at time s < t: z̃ ~ N(a z, σ²), of which a chain draws p(z | z̃).

    The first transition, from the prior, is one of p(z) alone: a chain that begins at z̃, with a = 1 and σ = ∞.

    Attributes:
        time: s, at which the network is asked; never below the earliest time of the process.
        a, sigma: of the transition.
        step: h of the Langevin step z ← z + ½ h ∇ log p(z | z̃) + √h ξ.
    """

    time: float
    a: float
    sigma: float
    step: float

    @property
    def pull(self) -> float:
        """1/σ², the precision of z̃ given a z."""
        return self.sigma**-2


def transitions(process: Process, times: Tensor, step: float) -> list[Transition]:
    """Returns the transitions of a grid, from the prior on.

        h = s²/a²,   s² = b (σ_s/σ_0) σ²,   σ_0 that of the earliest time and b the option `step`

    Args:
        process: of one component.
        times: falling, float64 [steps + 1].
        step: b.
    """
    ends = times[1:].clamp_min(process.earliest_time)
    psi, variance = (entry.flatten().tolist() for entry in process.transition(ends, times[:-1]))
    noise = process.sigma(torch.cat([ends, ends.new_tensor([process.earliest_time])])).tolist()
    found = []
    for number, (s, a, q, level) in enumerate(zip(ends.tolist(), psi, variance, noise, strict=False)):
        scale = step * level / noise[-1] * q
        if number == 0 and float(times[0]) == 1:
            found.append(Transition(s, 1.0, math.inf, scale))
        else:
            found.append(Transition(s, a, math.sqrt(q), scale / a**2))
    return found
