"""The interval of time over which a model's likelihood is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.process import Process

# A process without signal at t = 1 is entered here instead.
LAST = 1 - 1e-3


def time_interval(process: Process, first: float | None = None) -> Tensor:
    """Returns t₀ < t₁ [2], float64: 0, or `first`, and 1, or next to them where log SNR is infinite there."""
    bounds = torch.tensor([0.0, 1.0], dtype=torch.float64)
    if process.components > 1:
        finite = torch.linalg.det(process.moments(bounds)[1]) > 0
    else:
        finite = process.log_snr(bounds).isfinite() & (process.alpha_sigma(bounds)[0] > 0)
    if process.table is not None:
        # The network was never asked below the first point of its table.
        finite[0] = False
    times = torch.where(finite, bounds, torch.tensor([process.earliest_time, LAST], dtype=torch.float64))
    if first is not None:
        times[0] = first
    return times


def prior_deviation(process: Process) -> float:
    """Returns P of the prior N(0, P²) that sampling starts from (K = 1)."""
    return float(process.prior(torch.ones(1, 1, 1, 1, dtype=torch.float64)))
