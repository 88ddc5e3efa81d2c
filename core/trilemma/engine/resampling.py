"""Resampling: a plan adds noise again and repeats its steps, so that a given region and the rest agree."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, Tableau, scalar


def resampled(tableau: Tableau, process: Process, times: Tensor, resample: int, jump: int) -> Tableau:
    """Returns the plan that takes every `jump` steps `resample` times (2201.09865).

    Between two passes the state is noised from the time s that they end at to the time t that they begin at,

        z ← ψ z + √Q ξ,   ψ = α_t/α_s,   Q = σ_t² − ψ² σ_s²,

    which the last row of the pass does together with its own step: ψ A, ψ B and √(ψ² C² + Q).

    Args:
        tableau: of one step a row, each from the state and the prediction before it alone.
        process: of one component.
        times: [steps + 1], of the rows.
        resample: passes.
        jump: steps of a pass; the last may have fewer.

    Raises:
        UsageError: for a plan with stages or a history.
    """
    # A network that is told where a step goes is not told of the noise that is put back.
    ends = tableau.ends(float(times[-1]))
    rows = tuple(replace(row, to=to) for row, to in zip(tableau.rows, ends, strict=True))
    if not all(row.is_one_step for row in rows) or len(rows) != len(times) - 1:
        raise UsageError(
            "resampling repeats single steps and this sampler's plan has stages or a history; "
            "use a sampler of one row a step, each from the state and the prediction before it"
        )
    alpha, sigma = (level.tolist() for level in process.alpha_sigma(times))
    repeated: list[Row] = []
    for begin in range(0, len(rows), jump):
        end = min(begin + jump, len(rows))
        psi = alpha[begin] / alpha[end]
        variance = max(sigma[begin] ** 2 - psi**2 * sigma[end] ** 2, 0.0)
        last = rows[end - 1]
        B = tuple((lag, psi * scalar(coefficient)) for lag, coefficient in last.B)
        C = math.sqrt(psi**2 * scalar(last.C) ** 2 + variance)
        back = replace(last, A=psi * scalar(last.A), B=B, C=C)
        repeated += [*rows[begin : end - 1], back] * (resample - 1)
        repeated += rows[begin:end]
    return replace(tableau, rows=tuple(repeated))
