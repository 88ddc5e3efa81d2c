"""The symmetric splitting integrator of the reverse-time equation in phase space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trilemma.denoising import onto_data
from trilemma.errors import UsageError
from trilemma.process import Process
from trilemma.sampler import Sampler
from trilemma.spacing import Grid
from trilemma.tableau import Row, Tableau
from trilemma_plugins.cld.reverse import kick, rest, still


@dataclass(frozen=True)
class SSCS(Sampler):
    """With the reverse equation split into what rests and a kick (`trilemma_plugins.cld.reverse`), a step of h is

        half a flow at rest,   z ← z + h (D z + g s),   half a flow at rest,

    the flows exact, each over its own half of the interval, and two that meet merged into one. `start` asks for s, D
    and g at the time the step starts from, as published; of order 1. `midpoint` solves the kick by the explicit
    midpoint rule at the time in the middle, two evaluations a step: a Strang splitting with parts of order 2, so of
    order 2 in law. The half flow before the first kick changes nothing at the prior and is left out at t = 1.

    Use: the sampler of CLD-trained models, with `grid=squares` for few steps.

    Args:
        score: "start" or "midpoint".
        last: the step onto the data, by one noise-free step of "euler" as published, or "denoise", E[z_0 | z].
        grid: of times, see `trilemma.spacing`. The published ones, "linspace" and "squares", leave a last step of 1e-3.

    Raises:
        UsageError: for an option out of range.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """

    score: Literal["start", "midpoint"] = "start"
    last: Literal["euler", "denoise"] = "euler"
    grid: Grid = "linspace"

    deterministic = False
    components = (2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score not in ("start", "midpoint"):
            raise UsageError(f"sscs: score={self.score!r} is unknown; give start or midpoint")
        if self.last not in ("euler", "denoise"):
            raise UsageError(f"sscs: last={self.last!r} is unknown; give euler or denoise")

    @property
    def order(self) -> int:
        return 1 if self.score == "start" else 2

    def nfe(self, steps: int) -> int:
        return steps if self.score == "start" else 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        S = still(process)
        onto = float(times[-1]) == 0
        inner = times[:-1] if onto else times  # between them the steps split
        middle = (inner[:-1] + inner[1:]) / 2
        ends = torch.cat([middle[1:], inner[-1:]])  # where the flow after each kick leads
        rows: list[Row] = []
        if len(middle) and float(times[0]) < 1:
            psi, factor = rest(process, S, inner[0], middle[0])
            rows.append(_row(inner[0], psi, (), factor))
        for t, mid, end, h in zip(inner, middle, ends, inner[:-1] - inner[1:], strict=False):
            psi, factor = rest(process, S, mid, end)
            rows += self._kicked(process, S, t, mid, h, psi, factor)
        if onto:
            rows.append(self._last(process, times[-2]))
        return Tableau(tuple(rows), "score", components=process.components)

    def _kicked(
        self, process: Process, S: Tensor, t: Tensor, mid: Tensor, h: Tensor, psi: Tensor, factor: Tensor
    ) -> list[Row]:
        """A kick and the flow after it."""
        one = torch.eye(len(S), dtype=torch.float64)
        if self.score == "start":
            D, g = kick(process, S, t)
            return [_row(t, psi @ (one + h * D), (psi @ g * h,), factor)]
        D, g = kick(process, S, mid)
        half = h / 2
        whole = one + h * D @ (one + half * D)
        return [
            _row(mid, one + half * D, (g * half,), None),
            _row(mid, psi @ whole, (psi @ g * h, psi @ D @ g * h * half), factor, base=1),
        ]

    def _last(self, process: Process, t: Tensor) -> Row:
        if self.last == "denoise":
            A, B = onto_data(process, t, "score")
            return _row(t, A, (B,), None)
        F, G = process.drift(t), process.diffusion(t)
        one = torch.eye(len(F), dtype=torch.float64)
        return _row(t, one - t * F, (t * (G @ G.mT)[:, -1],), None)


def _row(t: Tensor, A: Tensor, B: tuple[Tensor, ...], C: Tensor | None, base: int = 0) -> Row:
    lines = tuple(map(tuple, A.tolist()))
    terms = tuple((lag, tuple(column.tolist())) for lag, column in enumerate(B))
    noise = 0.0 if C is None else tuple(map(tuple, C.tolist()))
    return Row(float(t), lines, terms, noise, base)
