"""The step of the symmetric splitting integrator in `trilemma bench kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from trilemma.bench.cell import Cell
from trilemma.bench.cells.row_steps import step_cells
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.cld.step import sscs_step

T, S, FOLLOWING = 0.5, 0.48, 0.46


def sscs_step_cells() -> Iterator[Cell]:
    """Yields the cells: a kick by the score and the merged linear part after it, with noise in both components."""
    process = CLD()
    h, m, friction = T - S, process.inverse_mass, process.damping
    beta = process.beta
    # The linear part of the reverse equation is dx = −βm v dt, dv = βx dt − βΓm v dt + √(2Γβ) dW, read forwards.
    B = beta * (T - FOLLOWING) / 2
    drift = torch.tensor([[0, -m], [1, -friction * m]], dtype=torch.float64)
    psi = torch.linalg.matrix_exp(drift * B)
    stationary = torch.diag(torch.tensor([1.0, 1 / m], dtype=torch.float64))
    factor = torch.linalg.cholesky(stationary - psi @ stationary @ psi.mT)
    ((xx, xv), (vx, vv)), ((l_xx, _), (l_vx, l_vv)) = psi.tolist(), factor.tolist()

    def formula(z: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        x, v = z.chunk(2, 1)
        n = noise.expand_as(z).chunk(2, 1)
        v = v + h * 2 * friction * beta * (m * v + score)
        return torch.cat([xx * x + xv * v + l_xx * n[0], vx * x + vv * v + l_vx * n[0] + l_vv * n[1]], 1)

    step = sscs_step(process, T, S, FOLLOWING)
    yield from step_cells("sscs_step", step, formula, components=2)


class Backend:
    """The cells by name; there are no operators here but those of the engine."""

    cells: ClassVar = {"sscs_step": sscs_step_cells}
