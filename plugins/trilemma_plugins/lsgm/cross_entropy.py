"""The cross entropy of an encoder's codes under a score prior, and the entropy that its divergence takes off it.

Codes z₀ ~ q(z₀|x) and the first state z_ε = α_ε z₀ + σ_ε ε of the process, all in nats and summed over a code:

    CE(q(z_ε|x), p) ≤ E[w ‖ε − ε̂(z_t, t)‖²] + D/2 ln(2πe σ_ε²) + KL(q(z₁|z₀) ‖ N(0, I)),    w of the weighting ll,
    KL(q(z_ε|x) ‖ p) = CE − H,     H = ½ Σ ln(2πe (α_ε² e^l + σ_ε²)),     l the log-variance of q(z₀|x).

The first two terms are the published cross entropy; the third, which training cannot change, is what they miss of a
process that ends with some signal (2106.05931, theorem 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2_PI_E = math.log(2 * math.pi * math.e)


def cross_entropy(weighted_error: Tensor, variance: Tensor, numbers: int) -> Tensor:
    """Returns w ‖ε − ε̂‖² + D/2 ln(2πe σ_ε²) [B], in nats.

    Args:
        weighted_error: w ‖ε − ε̂‖² [B].
        variance: σ_ε², single.
        numbers: D of a code.
    """
    return weighted_error + float(numbers * (_LOG_2_PI_E + variance.log()) / 2)


def last_divergence(code: Tensor, variance: Tensor) -> Tensor:
    """Returns KL(N(α₁ z₀, σ₁²) ‖ N(0, I)) [B], in nats, of codes z₀ [B, ...]; α₁² = 1 − σ₁².

    Args:
        code: z₀.
        variance: σ₁², single.
    """
    square, steady = float(1 - variance), float(variance - 1 - variance.log())
    return (square * code.square() + steady).flatten(1).sum(1) / 2


def entropy(log_variance: Tensor, variance: Tensor) -> Tensor:
    """Returns H [B] of q(z_ε|x), in nats.

    Args:
        log_variance: l [B, ...] of q(z₀|x).
        variance: σ_ε², single; α_ε² = 1 − σ_ε².
    """
    first = float(variance)
    noised = torch.log((1 - first) * log_variance.exp() + first)
    return (_LOG_2_PI_E + noised).flatten(1).sum(1) / 2
