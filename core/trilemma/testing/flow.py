"""The exact probability-flow map of a Gaussian mixture, by integration to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.testing.mixture import GaussianMixtureDenoiser

# Columns of the extrapolation; the order is twice as many.
COLUMNS = 6
State = TypeVar("State", float, Tensor)


def reference_flow(
    model: GaussianMixtureDenoiser, z: Tensor, start: float, end: float, labels: Tensor | None = None
) -> Tensor:
    """Returns z at time `end` of the probability-flow equation through z [B, ...] at time `start`, to about 1e-12.

    In y = z/α and ρ = σ/α it is dy/dρ = ε̂(y, ρ), whatever the process; ρ = sinh u keeps the steps even near 0 and
    far from it. Of several components it is dz/dt = F z − ½ G Gᵀ ∇ log p, in t.

    Args:
        model: the data, and the process.
        z: float64.
        start: where α > 0.
        end: 0 is the data.

    Raises:
        TrilemmaError: where the integration does not settle.
    """
    if model.process.components > 1:
        return _flow_of_components(model, z, start, end, labels)
    times = torch.tensor([start, end], dtype=torch.float64)
    alpha, sigma = model.process.alpha_sigma(times)
    u = (sigma / alpha).asinh()
    one = torch.ones((), dtype=torch.float64)

    def slope(place: float, y: Tensor) -> Tensor:
        angle = torch.tensor(place, dtype=torch.float64)
        return angle.cosh() * model.predict(y, one, angle.sinh(), "eps", labels)

    y = integrate(slope, z / alpha[0], float(u[0]), float(u[1]))
    return alpha[1] * y


def _flow_of_components(
    model: GaussianMixtureDenoiser, z: Tensor, start: float, end: float, labels: Tensor | None
) -> Tensor:
    K = model.process.components

    def slope(place: float, state: Tensor) -> Tensor:
        t = torch.full((len(state),), place, dtype=torch.float64)
        F, G = model.process.drift(t), model.process.diffusion(t)
        parts, score = (entry.reshape(len(state), K, -1) for entry in (state, model.score(state, t, labels)))
        return (F @ parts - G @ G.mT @ score / 2).reshape(state.shape)

    return integrate(slope, z, start, end)


def integrate(
    slope: Callable[[float, State], State], y: State, start: float, end: float, tolerance: float = 1e-12
) -> State:
    """Returns y(end) of dy/du = slope(u, y), by extrapolated midpoint steps, halved until nothing moves."""
    before: State | None = None
    for doubling in range(1, 10):
        count = 2**doubling
        h, state = (end - start) / count, y
        for k in range(count):
            state = _extrapolated(slope, state, start + k * h, h)
        if before is not None and float(torch.as_tensor(abs(state - before)).max()) < tolerance:
            return state
        before = state
    raise TrilemmaError(
        "the reference flow does not settle; give data with more spread, or a shorter interval"
    )


def _extrapolated(slope: Callable[[float, State], State], y: State, u: float, h: float) -> State:
    """One step of Gragg, Bulirsch and Stoer: midpoint rules of 2, 4, … substeps, their error a series in h²."""
    row: list[State] = []
    first = slope(u, y)
    for j in range(1, COLUMNS + 1):
        substep = h / (2 * j)
        before, now = y, y + substep * first
        for i in range(1, 2 * j):
            before, now = now, before + 2 * substep * slope(u + i * substep, now)
        entry = (now + before + substep * slope(u + h, now)) / 2
        new = [entry]
        for k in range(1, j):
            new.append(new[-1] + (new[-1] - row[k - 1]) / ((j / (j - k)) ** 2 - 1))
        row = new
    return row[-1]
