"""The damped oscillator with noise, dx = m v dB, dv = −(x + Γ m v) dB + √(2Γ) dW, m = 1/M, over a stretch B.

With a = Γm/2 and δ = a² − m, (F + a)² = δ I for its drift F, so that

    E(B) = e^(−aB) [c + s (F + a)],   c = cosh(√δ B),   s = sinh(√δ B)/√δ.

δ < 0 is underdamped, δ = 0 (Γ = 2√M) critically damped, δ > 0 overdamped; near 0 all three are one series in δB².
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_PLACES, _MASSES = (torch.from_numpy(entry) for entry in np.polynomial.legendre.leggauss(24))
# In units of the fastest rate.
_LONG = 2.0


def propagator(B: Tensor, m: float, friction: float) -> Tensor:
    """Returns E(B) [..., 2, 2] for B [...], float64."""
    a, decayed_c, decayed_s = _parts(B, m, friction)
    lines = [decayed_c + a * decayed_s, m * decayed_s, -decayed_s, decayed_c - a * decayed_s]
    return torch.stack(lines, -1).unflatten(-1, (2, 2))


def gathered_covariance(B: Tensor, m: float, friction: float) -> Tensor:
    """Returns Q(B) = 2Γ ∫₀ᴮ e eᵀ du [..., 2, 2], e = E(u) (0, 1): the covariance of the noise gathered over B.

    The position's is of third order in B. For a long stretch Q = S − E S Eᵀ with the stationary S = diag(1, M), which
    cancels a few digits at most; for a short one it is computed by quadrature, where nothing cancels.
    """
    a, delta = friction * m / 2, friction**2 * m**2 / 4 - m
    still = torch.diag(torch.tensor([1.0, 1 / m], dtype=torch.float64))
    E = propagator(B, m, friction)
    long = still - E @ still @ E.mT
    fastest = a + abs(delta) ** 0.5
    stretch = B.clamp(max=_LONG / fastest)
    # Shape [..., places, 2].
    e = propagator(stretch.unsqueeze(-1) * (1 + _PLACES) / 2, m, friction)[..., 1]
    weighted = e * (stretch.unsqueeze(-1) * _MASSES * friction).unsqueeze(-1)
    return torch.where((B * fastest > _LONG)[..., None, None], long, weighted.mT @ e)


def _parts(B: Tensor, m: float, friction: float) -> tuple[float, Tensor, Tensor]:
    """a, e^(−aB) c and e^(−aB) s. Exponents are added before they are raised: apart they over- and underflow."""
    a, delta = friction * m / 2, friction**2 * m**2 / 4 - m
    y = delta * B.square()
    near = y.abs() < 0.1
    root = abs(delta) ** 0.5
    decay = (-a * B).exp()
    if delta > 0:
        fast, slow = (-(a + root) * B).exp(), ((root - a) * B).exp()
        far_c, far_s = (slow + fast) / 2, (slow - fast) / (2 * root)
    elif delta < 0:
        far_c, far_s = decay * (root * B).cos(), decay * (root * B).sin() / root
    else:
        return a, decay, decay * B
    series_c, series_s = torch.zeros_like(y), torch.zeros_like(y)
    # Horner's rule on Σ yᵏ/(2k)! and Σ yᵏ/(2k+1)!.
    for k in range(8, 0, -1):
        series_c = (1 + series_c) * y / (2 * k * (2 * k - 1))
        series_s = (1 + series_s) * y / (2 * k * (2 * k + 1))
    c = torch.where(near, decay * (1 + series_c), far_c)
    return a, c, torch.where(near, decay * B * (1 + series_s), far_s)
