"""One step of the symmetric splitting integrator by itself."""

from __future__ import annotations

import torch

from trilemma.engine.row_step import RowStep
from trilemma.interfaces.process import Process
from trilemma_plugins.cld.sscs import SSCS


def sscs_step(
    process: Process, t: float, s: float, following: float | None = None, *, parameterization: str = "score"
) -> RowStep:
    """Returns a step of the symmetric splitting integrator from t to s < t, from the middle of one linear part on.

        z ← z + h (D z + g s),   then the linear part from (t + s)/2 down to (s + following)/2

    Its coefficients are those of the plan of `trilemma_plugins.cld.sscs.SSCS`, in which two halves of the linear part
    that meet are one.

    Args:
        process: of two components, which keeps its prior.
        t, s: times, s above 0.
        following: the time that the next step ends at; None where the linear part ends at s.
        parameterization: of the network's output: score, eps or x0.

    Raises:
        UsageError: for a process under which its prior is not stationary, or an unknown parameterization.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """
    times = [t, s] if following is None else [t, s, following]
    plan = SSCS().plan(process, torch.tensor(times, dtype=torch.float64))
    # A half of the linear part stands before the first kick of a plan that starts below the prior.
    row = plan.rows[1 - len(times)]
    return RowStep(process, row, plan.parameterization, parameterization)
