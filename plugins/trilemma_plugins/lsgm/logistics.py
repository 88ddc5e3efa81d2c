"""Mixtures of discretised logistic laws: probabilities of the 256 grey levels of a pixel.

Level k stands for x_k = 2k/255 − 1 and the interval of width w = 2/255 around it; the first and the last level have the
whole tail, so that the probabilities of all levels are 1 in sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH = 2 / 255
# Of log s: a law narrower than a hundredth of a level is a point.
LEAST = -10.0


def log_probability(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Returns log P(x) [B, C, H, W] of pixels on grey levels under mixtures of K logistic laws.

        P(k | μ, s) = sigmoid(a) − sigmoid(b) = sigmoid(a) sigmoid(−b) (1 − e^{−w/s}),   a, b = (x_k ± w/2 − μ)/s

    The product keeps its digits where the difference has none.

    Args:
        x: pixels in [−1, 1], [B, C, H, W].
        logits, means, log_scales: of the mixtures, [B, K, C, H, W].

    References:
        Salimans et al., PixelCNN++, arXiv:1701.05517.
    """
    inverse = (-log_scales.clamp_min(LEAST)).exp()
    centred = x.unsqueeze(1) - means
    above, below = (centred + WIDTH / 2) * inverse, (centred - WIDTH / 2) * inverse
    up, down = F.logsigmoid(above), F.logsigmoid(-below)
    between = up + down + torch.log(-torch.expm1(-WIDTH * inverse))
    pixels = x.unsqueeze(1)
    law = torch.where(pixels < -1 + WIDTH / 2, up, torch.where(pixels > 1 - WIDTH / 2, down, between))
    return (logits.log_softmax(1) + law).logsumexp(1)


def expectation(logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Returns E[x] [B, C, H, W] of the mixtures, their tails gathered at −1 and 1.

    E[min(max(X, −1), 1)] = 1 − s [softplus((1 − μ)/s) − softplus((−1 − μ)/s)],   X logistic
    """
    scale = log_scales.clamp_min(LEAST).exp()
    area = scale * (F.softplus((1 - means) / scale) - F.softplus((-1 - means) / scale))
    return (logits.softmax(1) * (1 - area)).sum(1)
