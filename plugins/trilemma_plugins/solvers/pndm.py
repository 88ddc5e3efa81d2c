"""Pseudo linear multistep: Adams–Bashforth's even-step weights carried by DDIM's transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau

# t, α, σ.
Point: TypeAlias = tuple[float, float, float]

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class PNDM(Sampler):
    """From t to s with ρ = σ/α and weights b of Adams–Bashforth for even steps:

        z_s = (α_s/α_t) z_t + α_s (ρ_s − ρ_t) Σ_j b_j ε̂_{−j}

    Warm-up `heun`: the first step is Heun's, with the mean of ε̂ at both ends; then two, three and four predictions are
    used. `prk`: the first three steps are those of the classic Runge–Kutta method at four evaluations each, to the
    middle in t and to s by the same transfer, the last with (ε̂₁ + 2 ε̂₂ + 2 ε̂₃ + ε̂₄)/6; then four predictions are
    used. A step onto σ = 0 is not part of the warm-up. As the weights are those of even steps in whatever variable the
    grid is even in, the equation is met to first order only where it is not ρ.

    Use: to reproduce models tuned for it; `deis` is the same idea with weights for the steps as they are.

    Args:
        warmup: "heun" or "prk".

    Raises:
        UsageError: for an option out of range.

    References:
        Liu et al., Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778.
    """

    warmup: Literal["heun", "prk"] = "heun"
    grid: Grid = "leading"
    clip: float | None = None

    order = 1
    deterministic = True
    from_pure_noise = False
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup not in ("heun", "prk"):
            raise UsageError(f"pndm: warmup={self.warmup!r} is unknown; give heun or prk")

    def nfe(self, steps: int) -> int:
        return steps + (3 if self.warmup == "prk" else 1) * self._warm(steps)

    def _warm(self, steps: int) -> int:
        """Steps of the warm-up."""
        return min(3 if self.warmup == "prk" else 1, steps - 1)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        levels = [level.tolist() for level in process.alpha_sigma(times)]
        points: list[Point] = list(zip(times.tolist(), *levels, strict=True))
        warm = self._warm(len(points) - 1)
        rows: list[Row] = []
        # Rows that see the final state of a time: later rows read their predictions.
        on_grid: list[int] = []
        for i in range(len(points) - 1):
            start, end = points[i], points[i + 1]
            on_grid.append(len(rows))
            if i >= warm:
                weights = _ADAMS_BASHFORTH[min(i, 3)]
                lags = [len(rows) - row for row in on_grid[::-1]]
                rows.append(_transfer(start[0], start, end, list(zip(lags, weights, strict=False))))
            elif self.warmup == "heun":
                rows.append(_transfer(start[0], start, end, [(0, 1.0)]))
                rows.append(_transfer(end[0], start, end, [(0, 0.5), (1, 0.5)], base=1))
            else:
                rows += _runge_kutta(start, _middle(process, start[0], end[0]), end)
        return Tableau(tuple(rows), "eps", self.clip)


def _runge_kutta(start: Point, middle: Point, end: Point) -> list[Row]:
    return [
        _transfer(start[0], start, middle, [(0, 1.0)]),
        _transfer(middle[0], start, middle, [(0, 1.0)], base=1),
        _transfer(middle[0], start, end, [(0, 1.0)], base=2),
        _transfer(end[0], start, end, [(0, 1 / 6), (1, 1 / 3), (2, 1 / 3), (3, 1 / 6)], base=3),
    ]


def _middle(process: Process, t: float, s: float) -> Point:
    at = torch.tensor((t + s) / 2, dtype=torch.float64)
    return float(at), float(process.alpha(at)), float(process.sigma(at))


def _transfer(at: float, start: Point, end: Point, terms: Sequence[tuple[int, float]], base: int = 0) -> Row:
    """The state of `start` carried to the level of `end` along a mean of predictions, the newest made at time `at`."""
    A = end[1] / start[1]
    move = end[2] - A * start[2]
    return Row(at, A, tuple((lag, move * weight) for lag, weight in terms), base=base)
