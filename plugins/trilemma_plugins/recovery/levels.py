"""The transitions of recovery likelihood, and the Langevin chains that run in each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process

Rule = Literal["variance", "curvature"]


@dataclass(frozen=True)
class Transition:
    """From a state z̃ at time t to states z at time s < t, z̃ ~ N(a z, σ²): a chain draws p(z | z̃) ∝ p_s(z) q(z̃ | z):

        z ← z̃/a,   then K times   z ← A z + ½ h ∇ log p_s(z) + D z̃ + c √h ξ,   A = 1 − ½ h a²/σ²,   D = ½ h a/σ²

    with h = s²/a². From the prior p(z | z̃) is p_s(z) alone: z̃ is noise, the chain begins at it and is not pulled to it.

    Attributes:
        start: t.
        time: s, at which the network is asked; never below that of the last level.
        a, sigma: of q(z̃ | z).
        noise: σ_s of the states that are drawn.
        scale: s², the step in the units of a z.
        from_prior: whether nothing of z is left at t, as at the prior.
    """

    start: float
    time: float
    a: float
    sigma: float
    noise: float
    scale: float
    from_prior: bool

    @property
    def curvature(self) -> float:
        """1/σ_s² + a²/σ², the largest of −log p(z | z̃): that of data at one point."""
        return 1 / self.noise**2 + (0.0 if self.from_prior else (self.a / self.sigma) ** 2)

    @property
    def begin(self) -> float:
        """The factor of z̃ that the chain begins with."""
        return 1.0 if self.from_prior else 1 / self.a

    @property
    def step(self) -> float:
        """h."""
        return self.scale * self.begin**2

    @property
    def keep(self) -> float:
        """A."""
        return 1.0 if self.from_prior else 1 - self.step / 2 * (self.a / self.sigma) ** 2

    @property
    def pull(self) -> float:
        """D."""
        return 0.0 if self.from_prior else self.step / 2 * self.a / self.sigma**2


def last_level(process: Process, end: float) -> float:
    """Returns the time of the last level: `end`, and for 0 the earliest time at which the network is asked."""
    return end or process.earliest_time


def transitions(
    process: Process, times: Tensor, step: float, end: float = 0.0, rule: Rule = "variance"
) -> list[Transition]:
    """Returns the transitions of a grid, from the prior to the last level.

    Args:
        process: of one component.
        times: falling, float64 [steps + 1]; those below the last level are taken for it.
        step: b of the rule.
        end: time of the last level, see `last_level`.
        rule: of the steps: "variance": s² = b (σ_s/σ_0) σ², σ_0 that of the last level (2012.08125); "curvature":
            h = b/(1/σ_s² + a²/σ²), b times the square of the least width of p(z | z̃), so that b < 4 on every level.

    Raises:
        UsageError: for a last level that is not below the other times.
    """
    last = last_level(process, end)
    # A time found by a noise level may miss the last one by its rounding.
    if not last < float(times[-2]) - 1e-9:
        raise UsageError(
            f"end={end!r} is not below {float(times[-2]):g}, the last time of the grid; give an earlier time, or 0"
        )
    ends = torch.cat([times[1:-1], times.new_tensor([last])])
    psi, variance = (entry.flatten().tolist() for entry in process.transition(ends, times[:-1]))
    noise = process.sigma(ends).tolist()
    found = []
    for t, s, a, q, level in zip(times.tolist(), ends.tolist(), psi, variance, noise, strict=False):
        scale = step * level / noise[-1] * q
        entry = Transition(t, s, a, math.sqrt(q), level, scale, t == 1 or not a)
        if rule == "curvature":
            entry = replace(entry, scale=step / entry.curvature / entry.begin**2)
        found.append(entry)
    return found


def check_chain(name: str, chain: int, step: float, end: float, rule: str, noise: float) -> None:
    """Refuses a number of steps K, their size b and its rule, a last level or a noise c that no chain can have.

    Raises:
        UsageError: with the component's `name`.
    """
    if isinstance(chain, bool) or not isinstance(chain, int) or not 1 <= chain <= 100_000:
        raise UsageError(f"{name}: chain={chain!r} is no number of steps; give an integer from 1 to 100000")
    if not 0 < step < math.inf:
        raise UsageError(f"{name}: step={step!r} is out of range; give a positive number, such as 2e-4")
    if not 0 <= end < 1:
        raise UsageError(
            f"{name}: end={end!r} is no time of a last level; give one below 1, or 0 for the earliest"
        )
    if rule not in get_args(Rule):
        raise UsageError(f"{name}: unknown rule={rule!r}; expected {' or '.join(get_args(Rule))}")
    if not 0 <= noise < math.inf:
        raise UsageError(f"{name}: noise={noise!r} is out of range; give a number from 0, such as 0.99")
