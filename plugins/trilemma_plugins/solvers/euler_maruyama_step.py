"""One step of Euler–Maruyama by itself."""

from __future__ import annotations

import torch

from trilemma.engine.row_step import RowStep
from trilemma.interfaces.process import Process
from trilemma_plugins.solvers.euler_maruyama import EulerMaruyama


def euler_maruyama_step(process: Process, t: float, s: float, *, parameterization: str = "score") -> RowStep:
    """Returns a step of Euler–Maruyama of the reverse-time equation from t to s < t, h = t − s:

        z_s = (1 − h F) z_t + h G Gᵀ ∇ log p(z_t) + √h G ξ

    Its coefficients are those of the plan of `trilemma_plugins.solvers.euler_maruyama.EulerMaruyama`.

    Args:
        process: of any number of components, of which noise enters the last.
        t, s: times; s = 0 lands on the data without noise, E[z_0 | z].
        parameterization: of the network's output.

    Raises:
        UsageError: for an unknown parameterization.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """
    plan = EulerMaruyama().plan(process, torch.tensor([t, s], dtype=torch.float64))
    return RowStep(process, plan.rows[0], plan.parameterization, parameterization)
