"""Langevin chains from one noise level to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.recovery.levels import transitions


@dataclass(frozen=True)
class RecoveryLangevin(Sampler):
    """From z̃ at t to z at s, with q(z̃ | z) = N(a z, σ²), K steps of Langevin on p(z | z̃) ∝ p_s(z) q(z̃ | z):

        z ← z̃/a,   then K times   z ← z + ½ h [∇ log p_s(z) + (a/σ²)(z̃ − a z)] + c √h ξ

    with h = b (σ_s/σ_0) σ²/a². There is no Metropolis correction, so h must be small against the width of p(z | z̃): on
    N(0, 1/κ) the chain has the variance c²/(κ (1 − h κ/4)). The last level is that of the earliest time, and its states
    are the samples. In the transition from the prior z̃ is noise alone: the chain begins at it and is not pulled to it.

    Use: energy models that were trained by recovery likelihood, at their own levels. With any other model of the score
    it needs many more evaluations than an integrator.

    Args:
        chain: K.
        step: b; h is proportional to it.
        noise: c; below 1 it sharpens.
        grid: the levels. The paper has six, of DDPM's linear table: grid=[1.0,0.501,0.401,0.301,0.201,0.101].

    Raises:
        UsageError: for an option out of range.

    References:
        Gao et al., Learning Energy-Based Models by Diffusion Recovery Likelihood, arXiv:2012.08125.
    """

    chain: int = 30
    step: float = 2e-4
    noise: float = 0.99
    grid: Grid = "trailing"

    order = 0
    deterministic = False
    from_pure_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.chain, "recovery-langevin: chain", 1, 100_000, what="is no number of steps")
        if not (0 < self.step < math.inf and 0 <= self.noise < math.inf):
            raise UsageError(
                f"recovery-langevin: step={self.step!r} or noise={self.noise!r} is out of range; "
                "give a positive step and noise from 0"
            )

    def nfe(self, steps: int) -> int:
        return steps * self.chain

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows: list[Row] = []
        for entry in transitions(process, times, self.step):
            h, pull = entry.step, entry.pull
            A, D = 1 - h / 2 * entry.a**2 * pull, h / 2 * entry.a * pull
            # z̃ itself stays one row further back with every step.
            rows.append(Row(entry.time, 1 / entry.a, ()))
            rows += [
                Row(
                    entry.time,
                    A,
                    ((0, h / 2),),
                    self.noise * math.sqrt(h),
                    D=((k, D),) if D else (),
                    to=entry.time,
                )
                for k in range(1, self.chain + 1)
            ]
        return Tableau(tuple(rows), "score", steps=(1 + self.chain,) * (len(times) - 1))
