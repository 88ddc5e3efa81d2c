"""The symmetric splitting integrator of the reverse-time equation in phase space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau, matrix_row
from trilemma.numerics.conversion import convert
from trilemma_plugins.cld.splitting import linear_flow, score_term, stationary_covariance


@dataclass(frozen=True)
class SSCS(Sampler):
    """With the reverse equation split into a linear part and the score's term (`trilemma_plugins.cld.splitting`), a
    step of h is

        half of the linear part,   z ← z + h (D z + g s),   half of the linear part,

    the linear parts exact, each over its own half of the interval, and two that meet merged into one. `start` asks for
    s, D and g at the time the step starts from, as published; of order 1. `midpoint` solves the kick by the explicit
    midpoint rule at the time in the middle, two evaluations a step: a Strang splitting with parts of order 2, so of
    order 2 in law. The half before the first kick changes nothing at the prior and is left out at t = 1.

    A kick that holds s fixed grows without bound near the data, as s does. One that holds x̂₀ fixed solves

        dz/dτ = D z + g (α x̂₀ − w·z)/σ²,   w, α, σ of `trilemma.interfaces.process.Process.last_component`,

    at the time in the middle exactly, and stays bounded for any number of steps.

    Use: the sampler of CLD-trained models, with `grid=squares` for few steps, `hold=x0` for fewer.

    Args:
        score: "start" or "midpoint".
        hold: what a kick holds, the "score" or "x0".
        last: the step onto the data, by one noise-free step of "euler" as published, or "denoise", E[z_0 | z].
        grid: of times, see `trilemma.Grid`. The published ones, "linspace" and "squares", leave a last step of 1e-3.

    Raises:
        UsageError: for an option out of range.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """

    score: Literal["start", "midpoint"] = "start"
    hold: Literal["score", "x0"] = "score"
    last: Literal["euler", "denoise"] = "euler"
    grid: Grid = "linspace"

    deterministic = False
    components = (2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score not in ("start", "midpoint"):
            raise UsageError(f"sscs: score={self.score!r} is unknown; give start or midpoint")
        if self.hold not in ("score", "x0"):
            raise UsageError(f"sscs: hold={self.hold!r} is unknown; give score or x0")
        if self.last not in ("euler", "denoise"):
            raise UsageError(f"sscs: last={self.last!r} is unknown; give euler or denoise")

    @property
    def order(self) -> int:
        return 1 if self.score == "start" else 2

    def nfe(self, steps: int) -> int:
        return steps if self.score == "start" else 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        S = stationary_covariance(process)
        onto = float(times[-1]) == 0
        # The steps between these times are split.
        inner = times[:-1] if onto else times
        middle = (inner[:-1] + inner[1:]) / 2
        # The linear part after each kick ends here.
        ends = torch.cat([middle[1:], inner[-1:]])
        rows: list[Row] = []
        if len(middle) and float(times[0]) < 1:
            psi, factor = linear_flow(process, S, inner[0], middle[0])
            rows.append(matrix_row(inner[0], psi, (), factor))
        for t, mid, end, h in zip(inner, middle, ends, inner[:-1] - inner[1:], strict=False):
            psi, factor = linear_flow(process, S, mid, end)
            rows += self._kicked(process, S, t, mid, h, psi, factor)
        if onto:
            rows.append(self._last(process, times[-2]))
        return Tableau(tuple(rows), self.hold, components=process.components)

    def _kicked(
        self, process: Process, S: Tensor, t: Tensor, mid: Tensor, h: Tensor, psi: Tensor, factor: Tensor
    ) -> list[Row]:
        """A kick and the flow after it."""
        make = _holding_the_score if self.hold == "score" else _holding_x0
        if self.score == "start":
            A, b, _ = make(process, S, t if self.hold == "score" else mid, h)
            return [matrix_row(t, psi @ A, (psi @ b,), factor)]
        A, b, through = make(process, S, mid, h)
        half_A, half_b, _ = make(process, S, mid, h / 2)
        base = A + through @ (half_A - torch.eye(len(S), dtype=torch.float64))
        return [
            matrix_row(mid, half_A, (half_b,), None),
            matrix_row(mid, psi @ base, (psi @ b, psi @ through @ half_b), factor, base=1),
        ]

    def _last(self, process: Process, t: Tensor) -> Row:
        if self.last == "denoise":
            A, B = process.step_onto_data(t, self.hold)
            return matrix_row(t, A, (B,), None)
        F, G = process.drift(t), process.diffusion(t)
        one, g = torch.eye(len(F), dtype=torch.float64), (G @ G.mT)[:, -1]
        w, alpha, sigma = process.last_component(t)
        p, q = convert(self.hold, "score", alpha, sigma)
        return matrix_row(t, one - t * F + t * g.unsqueeze(-1) * (p * w), (t * q * g,), None)


def _holding_the_score(process: Process, S: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z' = A z + b s by an Euler step of h, and hD, by which the state it is taken at enters it."""
    D, g = score_term(process, S, t)
    return torch.eye(len(S), dtype=torch.float64) + h * D, h * g, h * D


def _holding_x0(process: Process, S: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z' = A z + b x̂₀, exact over h; the state it is taken at enters by x̂₀ alone."""
    D, g = score_term(process, S, t)
    w, alpha, sigma = process.last_component(t)
    K = len(S)
    generator = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    generator[:K, :K] = D - g.unsqueeze(-1) * w / sigma.square()
    generator[:K, K] = g * alpha / sigma.square()
    flow = torch.linalg.matrix_exp(h * generator)
    return flow[:K, :K], flow[:K, K], torch.zeros_like(D)
