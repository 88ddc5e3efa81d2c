"""The exact law of the samples that a plan draws from Gaussian data."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from trilemma.conversion import convert
from trilemma.process import Process
from trilemma.tableau import Tableau


def sample_law(tableau: Tableau, process: Process, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of a sample of N(m, s²), the state at the first time drawn from its exact marginal (K = 1).

    The exact denoiser x̂₀ = m + α s²/(α² s² + σ²)·(z − α m) is affine, so every state is an affine function of the
    standard normals that went into it: a vector [2 + rows] of coefficients of 1, of the start and of each row's noise.
    A clip is not affine and is left out.
    """
    rows = tableau.rows
    t = torch.tensor([row.t for row in rows], dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    marginal = alpha.square() * variance + sigma.square()
    gain = alpha * variance / marginal
    p, q = convert("x0", tableau.parameterization, alpha, sigma)
    slope, offset = p + q * gain, q * (1 - gain * alpha) * mean

    sources = torch.eye(2 + len(rows), dtype=torch.float64)
    states: list[Tensor] = [alpha[0] * mean * sources[0] + marginal[0].sqrt() * sources[1]]
    predictions: list[Tensor] = []
    for r, row in enumerate(rows):
        predictions.append(slope[r] * states[r] + offset[r] * sources[0])
        state = cast(float, row.A) * states[r - row.base] + cast(float, row.C) * sources[2 + r]
        for lag, coefficient in row.B:
            state = state + cast(float, coefficient) * predictions[r - lag]
        states.append(state)
    return float(states[-1][0]), float(states[-1][1:].square().sum())
