"""Warnings about requests that run but cannot be right: a plan that blows up, a prior that the process does not
reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Tableau, scalar
from trilemma.numerics.conversion import convert

BLOWN_UP = 3.0
# Nats for each number of the data, for data of size 1. A variance-preserving process then keeps α² = 0.1.
FAR = 0.05
ROWS = 64


def check_start(name: str, sampler: Sampler, process: Process, times: Tensor) -> None:
    """Raises UsageError where a sampler would start from α = 0 and does not claim to."""
    if sampler.from_pure_noise or process.components > 1 or float(process.alpha(times[0])) > 0:
        return
    raise UsageError(
        f"{name} cannot take a step from t = {float(times[0]):g}, where nothing is left of the data (α = 0) under "
        f"{type(process).__name__}; use a sampler that can, or a grid that begins below, such as grid=leading"
    )


def unreached_prior(process: Process) -> str:
    """Returns a warning where states at t = 1 are far from the prior that samples start from; "" where they are not.

    The measure is KL(q(z_1 | x₀ = 1) ‖ prior), in nats for a number of the data.
    """
    gap = prior_gap(process)
    if gap <= FAR:
        return ""
    return (
        f"{type(process).__name__} ends {gap:.2g} nats a pixel away from its prior at t = 1: samples start from "
        "states that the network was not trained on; give a process with more noise at t = 1, or a latent"
    )


def prior_gap(process: Process) -> float:
    """Returns KL(N(μ, Σ) ‖ N(0, S)) in nats, of q(z_1 | x₀ = 1) and the prior's covariance S, both K×K."""
    K = process.components
    mean, cov = process.moments(torch.ones((), dtype=torch.float64))
    prior = process.prior_covariance()
    inverse = torch.linalg.inv(prior)
    trace = float((inverse * cov).sum()) + float(mean @ inverse @ mean)
    return (trace - K + float(torch.logdet(prior) - torch.logdet(cov))) / 2


def blow_up(name: str, tableau: Tableau, process: Process, times: Tensor) -> str:
    """Returns a warning where a plan of few rows draws Gaussian data of deviation ½ with three times their deviation.

    A plan that does not end at the data is not checked.
    """
    ends_at_data = float(times[-1]) == 0
    if tableau.components > 1 or tableau.clip is not None or not ends_at_data:
        return ""
    if not 0 < len(tableau.rows) <= ROWS:
        return ""
    ratio = deviation(tableau, process, 0.25) / 0.5
    if ratio < BLOWN_UP:
        return ""
    return (
        f"{name} blows up in so few steps under {type(process).__name__}: it draws Gaussian data with {ratio:.2g} "
        "times their deviation; give more steps, a grid such as grid=lambda, a lower order, or clip=1"
    )


def deviation(tableau: Tableau, process: Process, variance: float) -> float:
    """Returns the standard deviation of a plan's samples for N(0, s²) data, with the exact denoiser and an exact start.

    The last state is linear in the first and in the noise of each row. Its coefficients are found backwards, from the
    last row to the first, at the cost of one pass over the plan.
    """
    rows = tableau.rows
    t = torch.tensor([row.t for row in rows], dtype=torch.float64)
    _, alpha, sigma = process.last_component(t)
    total = alpha.square() * variance + sigma.square()
    p, q = convert("x0", tableau.parameterization, alpha, sigma)
    slopes = (p + q * alpha * variance / total).tolist()
    of_state, of_prediction = [0.0] * len(rows) + [1.0], [0.0] * len(rows)
    squares = 0.0
    for r in reversed(range(len(rows))):
        row, after = rows[r], of_state[r + 1]
        of_state[r - row.base] += scalar(row.A) * after
        for back, weight in row.D:
            of_state[r - back] += scalar(weight) * after
        for lag, coefficient in row.B:
            of_prediction[r - lag] += scalar(coefficient) * after
        of_state[r] += slopes[r] * of_prediction[r]
        squares += (scalar(row.C) * after) ** 2
    found = math.sqrt(squares + of_state[0] ** 2 * float(total[0]))
    return found if math.isfinite(found) else math.inf
