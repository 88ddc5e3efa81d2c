"""Langevin chains from one noise level to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.recovery.levels import Rule, check_chain, transitions


@dataclass(frozen=True)
class RecoveryLangevin(Sampler):
    """From z̃ at t to z at s, with q(z̃ | z) = N(a z, σ²), K steps of Langevin on p(z | z̃) ∝ p_s(z) q(z̃ | z):

        z ← z̃/a,   then K times   z ← z + ½ h [∇ log p_s(z) + (a/σ²)(z̃ − a z)] + c √h ξ

    with h = b (σ_s/σ_0) σ²/a², or h = b/(1/σ_s² + a²/σ²) by the rule "curvature". There is no Metropolis correction, so
    h must be small against the width of p(z | z̃): on N(0, 1/κ) the chain has the variance c²/(κ (1 − h κ/4)). By
    "curvature" the largest h κ is b, and c = √(1 − b/4) makes the least widths exact. In the transition from the prior
    z̃ is noise alone: the chain begins at it and is not pulled to it. The states of the last level are the samples; with
    `end`, which leaves noise in them, their means E[x₀ | z] are, for one more evaluation.

    Use: energy models that were trained by recovery likelihood, at their own levels. With any other model of the score
    it needs many more evaluations than an integrator.

    Args:
        chain: K.
        step: b; h is proportional to it.
        rule: of h: "variance", the paper's, or "curvature", of which one b does for all levels.
        noise: c; below 1 it sharpens.
        end: time of the last level; 0 for the earliest at which the network is asked. A later one has a smoother
            energy.
        grid: the levels before the last; the paper's, of DDPM's linear table, are [1.0,0.501,0.401,0.301,0.201,0.101].
            By "curvature" thirty steps bear a ratio of α²/σ² of about ten from one level to the next.

    Raises:
        UsageError: for an option out of range.

    References:
        Gao et al., Learning Energy-Based Models by Diffusion Recovery Likelihood, arXiv:2012.08125.
    """

    chain: int = 30
    step: float = 2e-4
    rule: Rule = "variance"
    noise: float = 0.99
    end: float = 0.0
    grid: Grid = "trailing"

    order = 0
    deterministic = False
    from_pure_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chain("recovery-langevin", self.chain, self.step, self.end, self.rule, self.noise)

    def nfe(self, steps: int) -> int:
        return steps * self.chain + bool(self.end)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows: list[Row] = []
        for level in transitions(process, times, self.step, self.end, self.rule):
            h, D = level.step, level.pull
            # The state z̃ stays one row further back with every step.
            rows.append(Row(level.start, level.begin, ()))
            rows += [
                Row(
                    level.time,
                    level.keep,
                    ((0, h / 2),),
                    self.noise * math.sqrt(h),
                    D=((k, D),) if D else (),
                    to=level.time,
                )
                for k in range(1, self.chain + 1)
            ]
        sizes = [1 + self.chain] * (len(times) - 1)
        if self.end:
            alpha, sigma = map(float, process.alpha_sigma(times.new_tensor([self.end])))
            rows.append(Row(self.end, 1 / alpha, ((0, sigma**2 / alpha),), to=0.0))
            sizes[-1] += 1
        return Tableau(tuple(rows), "score", steps=tuple(sizes))
