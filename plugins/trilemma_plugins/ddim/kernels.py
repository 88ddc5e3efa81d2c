"""The step of DDIM in `trilemma bench kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.bench.cell import Cell
from trilemma.bench.cells.row_steps import step_cells
from trilemma.interfaces.process import Process
from trilemma_plugins.ddim.step import ddim_step

ETA, SCALE, CLIP = 1.0, 2.0, 1.0
T, S = 0.5, 0.45


def ddim_step_cells() -> Iterator[Cell]:
    """Yields the cells: a stochastic step with guidance and clipping."""
    process = lookup.process("vp-continuous")
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(process, T), _scales(process, S)
    c1 = ETA * sigma_s / sigma_t * (1 - (alpha_t / alpha_s) ** 2) ** 0.5
    c2 = (sigma_s**2 - c1**2) ** 0.5

    def formula(z: Tensor, output: Tensor, noise: Tensor) -> Tensor:
        cond, null = output.chunk(2)
        eps = null + SCALE * (cond - null)
        x0 = ((z - sigma_t * eps) / alpha_t).clamp(-CLIP, CLIP)
        return alpha_s * x0 + c2 * (z - alpha_t * x0) / sigma_t + c1 * noise

    step = ddim_step(process, T, S, eta=ETA, clip=CLIP, scale=SCALE)
    yield from step_cells("ddim_step", step, formula, branches=2, variant="CFG, clip")


def _scales(process: Process, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return float(process.alpha(time)), float(process.sigma(time))


class Backend:
    """The cells by name; there are no operators here but those of the engine."""

    cells: ClassVar = {"ddim_step": ddim_step_cells}
