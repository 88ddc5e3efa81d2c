"""The step of Euler–Maruyama in `trilemma bench kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.bench.cell import Cell
from trilemma.bench.cells.row_steps import step_cells
from trilemma_plugins.solvers.euler_maruyama_step import euler_maruyama_step

T, S = 0.5, 0.48


def euler_maruyama_step_cells() -> Iterator[Cell]:
    """Yields the cells, in phase space."""
    process = lookup.process("cld")
    t = torch.tensor(T, dtype=torch.float64)
    h, F, G = T - S, process.drift(t).tolist(), process.diffusion(t).tolist()
    g = G[1][1]

    def formula(z: Tensor, score: Tensor, noise: Tensor) -> Tensor:
        x, v = z.chunk(2, 1)
        fresh = noise.expand_as(z).chunk(2, 1)[1]
        new_x = x - h * (F[0][0] * x + F[0][1] * v)
        new_v = v - h * (F[1][0] * x + F[1][1] * v) + h * g * g * score + h**0.5 * g * fresh
        return torch.cat([new_x, new_v], 1)

    step = euler_maruyama_step(process, T, S)
    yield from step_cells("euler_maruyama_step", step, formula, components=2, variant="phase space")


class Backend:
    """The cells by name; there are no operators here but those of the engine."""

    cells: ClassVar = {"euler_maruyama_step": euler_maruyama_step_cells}
