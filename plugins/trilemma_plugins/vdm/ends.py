"""Between which times a model's likelihood is measured, and the prior at the later one."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process

LAST = 1 - 1e-3  # where a process without signal at t = 1 is entered instead


def ends(process: Process, first: float | None = None) -> Tensor:
    """t₀ < t₁ [2], float64: 0, or `first`, and 1, or next to them where log SNR is infinite there."""
    bounds = torch.tensor([0.0, 1.0], dtype=torch.float64)
    if process.components > 1:
        finite = torch.linalg.det(process.moments(bounds)[1]) > 0
    else:
        finite = process.log_snr(bounds).isfinite() & (process.levels(bounds)[0] > 0)
    if process.table is not None:
        finite[0] = False  # the network was never asked below the first point of its table
    times = torch.where(finite, bounds, torch.tensor([process.earliest_time, LAST], dtype=torch.float64))
    if first is not None:
        times[0] = first
    return times


def prior_deviation(process: Process) -> float:
    """P of the prior N(0, P²) that sampling starts from (K = 1)."""
    return float(process.prior(torch.ones(1, 1, 1, 1, dtype=torch.float64)))


def prior_covariance(process: Process) -> Tensor:
    """P [K, K] of the prior N(0, P ⊗ I)."""
    K = process.components
    factor = process.prior(torch.eye(K, dtype=torch.float64).view(K, K, 1, 1)).view(K, K)
    return factor.mT @ factor
