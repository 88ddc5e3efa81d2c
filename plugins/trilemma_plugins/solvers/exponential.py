"""Exponential Adams weights: the integral of e^(…)·polynomial over a step in λ = log(α/σ).

In λ both forms of the probability-flow equation are a scaled state that is the integral of the prediction:

    z_s/σ_s = z_t/σ_t + ∫ e^λ x̂₀ dλ,      z_s/α_s = z_t/α_t − ∫ e^(−λ) ε̂ dλ.

A multistep method puts the interpolating polynomial of past predictions under the integral and integrates exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.numerics.vandermonde import vandermonde

EPSILON = 2.0**-53
# 1/n! as far as a float tells it from 0.
INVERSE_FACTORIALS = [1 / math.factorial(n) for n in range(171)]


def alpha_sigma_lambda(process: Process, times: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Returns α, σ and λ = log(α/σ) at the times; λ = −∞ where α = 0 and ∞ where σ = 0."""
    alpha, sigma = process.alpha_sigma(times)
    return alpha.tolist(), sigma.tolist(), (alpha / sigma).log().tolist()


def time_of(process: Process, half_log_snr: float) -> float:
    """Returns the time at which log(α/σ) is `half_log_snr`."""
    return float(process.time_of_log_snr(torch.tensor(2 * half_log_snr, dtype=torch.float64)))


def phi(k: int, x: float) -> float:
    """Returns φ_k(x) = ∫₀¹ e^((1−v)x) v^(k−1)/(k−1)! dv, k ≥ 1; φ_{k+1} = (φ_k − 1/k!)/x."""
    # The recursion cancels there; the terms fall, so that no sum of them is below half the first.
    if -1 < x < 1:
        term = total = INVERSE_FACTORIALS[k]
        n = k
        while not -EPSILON * total <= term <= EPSILON * total:
            n += 1
            term *= x / n
            total += term
        return total
    value = math.exp(x)
    for n in range(k):
        value = (value - INVERSE_FACTORIALS[n]) / x
    return value


def adams_moment(k: int, h: float, rate: float = 1.0) -> float:
    """Returns ∫₀ʰ c e^(−c(h−u)) u^k du."""
    return rate * h ** (k + 1) * math.factorial(k) * phi(k + 1, -rate * h)


def adams_weights(nodes: Sequence[float], h: float, rate: float = 1.0) -> list[float]:
    """Returns w_j = ∫₀ʰ c e^(−c(h−u)) ℓ_j(u) du for the Lagrange basis ℓ_j on the nodes; Σ w_j = 1 − e^(−ch).

    Args:
        nodes: u_j, at most a handful, distinct.
        h: length of the step in λ, positive or (with a negative rate) not.
        rate: c; 1 for x̂₀ under the flow, 1 + η under the reverse equation, −1 for ε̂.
    """
    if len(nodes) == 1:
        return [-math.expm1(-rate * h)]
    scaled = [node / h for node in nodes]
    return vandermonde(scaled, [adams_moment(k, h, rate) / h**k for k in range(len(nodes))])


def line_weights(nodes: Sequence[float], whole: float, slope: float) -> list[float]:
    """Returns the weights of the predictions at two nodes, 0 and u: whole · x̂₀(0) + slope · (x̂₀(u) − x̂₀(0))/u."""
    if nodes[0]:
        return [slope / nodes[0], whole - slope / nodes[0]]
    return [whole - slope / nodes[1], slope / nodes[1]]


def history(half_log_snr: Sequence[float], i: int, order: int) -> list[float]:
    """Returns λ_j − λ_i of the predictions that step i interpolates, newest first: all there are, at most `order`.

    The step onto the data, where λ is infinite, takes the newest alone, and a prediction made where α = 0 is left
    out: the interpolation's limit there.
    """
    here = half_log_snr[i]
    if not math.isfinite(here) or not math.isfinite(half_log_snr[i + 1]):
        return [0.0]
    points = half_log_snr[max(i - order + 1, 0) : i + 1][::-1]
    return [point - here for point in points if math.isfinite(point)]


def correction(scale: float, corrector: Sequence[float], predictor: Sequence[float]) -> list[float]:
    """Returns the weights of the correction of a predicted state at s, newest prediction (that at s) first.

    Args:
        scale: α_s.
        corrector: weights of the predictions at s, t and before.
        predictor: weights of those at t and before.
    """
    return [scale * (c - p) for c, p in zip_longest(corrector, (0.0, *predictor), fillvalue=0.0)]
