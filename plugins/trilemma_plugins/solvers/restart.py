"""Restart sampling: go back up in noise and solve down again, some times over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.exponential import time_of
from trilemma_plugins.solvers.heun import Point, heun_rows


@dataclass(frozen=True)
class Restart(Sampler):
    """Heun's method for dz̄ = ε̂ dρ, z̄ = z/α and ρ = σ/α, that on its way down repeats an interval [ρ_b, ρ_a] of noise:

        z̄ ← z̄ + s_noise √(ρ_a² − ρ_b²) ξ at ρ_b, then Heun's steps from ρ_a down to ρ_b;   `restarts` times

    ρ_b is the level of the grid nearest to rho_min, of those after at least one step and above σ = 0, and
    ρ_a = ρ_b · rho_max/rho_min, but not beyond the first level. So the interval is moved onto the grid: there always is
    one, and every process pays the same evaluations. A pass is spaced evenly in ρ^(1/7). One step alone has no level to
    restart at.

    Use: when there are evaluations to spend: more restarts where the model's errors are large, and the interval where
    the detail is decided that should get better.

    Args:
        restarts: number of passes; 0 is `heun`.
        rho_min, rho_max: the interval, ρ in units of the data.
        pass_steps: steps of a pass; ⌈S/5⌉ by default. A fixed number leaves an error that does not fall with S.
        s_noise: factor of the fresh noise; other than 1 the law of the samples is changed.

    Raises:
        UsageError: for an option out of range.

    References:
        Xu et al., Restart Sampling for Improving Generative Processes, arXiv:2306.14878.
    """

    restarts: int = 2
    rho_min: float = 0.06
    rho_max: float = 0.3
    pass_steps: int | None = None
    s_noise: float = 1.0
    grid: Grid = "karras"
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.restarts, "restart: restarts", 0, 100_000, what="is no count")
        if not 0 < self.rho_min < self.rho_max < math.inf:
            raise UsageError(
                f"restart: rho_min={self.rho_min!r}, rho_max={self.rho_max!r}; expected 0 < rho_min < rho_max"
            )
        if self.pass_steps is not None:
            checked_integer(self.pass_steps, "restart: pass_steps", 1, 100_000, what="is no count")
        if not 0 < self.s_noise < math.inf:
            raise UsageError(f"restart: s_noise={self.s_noise!r} is out of range; give a positive number")

    @property
    def order(self) -> int:
        settles = self.pass_steps is None and self.s_noise == 1
        return 2 if settles or self.restarts == 0 else 0

    @property
    def deterministic(self) -> bool:
        return self.restarts == 0

    # It follows from the options.
    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("point",) if self.s_noise == 1 or self.deterministic else ()

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1 + (2 * self.restarts * self._pass_steps(steps) if steps > 1 else 0)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        levels = [level.tolist() for level in process.alpha_sigma(times)]
        points: list[Point] = list(zip(times.tolist(), *levels, strict=True))
        legs = [points]
        if self.restarts and len(points) > 2:
            place = self._place(points)
            back = self._pass(process, points, place)
            legs = [points[: place + 1], *[back] * self.restarts, points[place:]]
        rows: list[Row] = []
        for leg, after in pairwise([*legs, legs[-1][-1:]]):
            for start, end in pairwise(leg):
                onward = after[0] if end is leg[-1] else end
                rows += heun_rows(start, end, onward, self.s_noise * _noise(end, onward))
        return Tableau(tuple(rows), "x0", self.clip)

    def _pass_steps(self, steps: int) -> int:
        return self.pass_steps or -(-steps // 5)

    def _place(self, points: list[Point]) -> int:
        """Index of the level from which noise is added."""
        return min(
            range(1, len(points) - 1), key=lambda i: abs(math.log(points[i][2] / points[i][1] / self.rho_min))
        )

    def _pass(self, process: Process, points: list[Point], place: int) -> list[Point]:
        """From ρ_a down to ρ_b."""
        low, first = points[place], points[0]
        bottom = low[2] / low[1]
        top = bottom * self.rho_max / self.rho_min
        if first[1] > 0:
            top = min(top, first[2] / first[1])
        count = self._pass_steps(len(points) - 1)
        roots = torch.linspace(top ** (1 / 7), bottom ** (1 / 7), count + 1, dtype=torch.float64)[:-1]
        times = [time_of(process, -math.log(rho)) for rho in roots.pow(7).tolist()]
        levels = [level.tolist() for level in process.alpha_sigma(torch.tensor(times, dtype=torch.float64))]
        return [*zip(times, *levels, strict=True), low]


def _noise(low: Point, high: Point) -> float:
    """Coefficient of ξ in α_a z̄ + α_a √(ρ_a² − ρ_b²) ξ."""
    if high is low:
        return 0.0
    return high[1] * math.sqrt(max((high[2] / high[1]) ** 2 - (low[2] / low[1]) ** 2, 0.0))
