"""Cells of steps by name: a family gives the step and its formula in PyTorch, for `cells` of its kernel backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trilemma.bench.cell import Cell, Work, compiled
from trilemma.engine.row_step import RowStep
from trilemma.numerics.normal import STEP, reference_normal
from trilemma.ops import layout

# [B, C, H, W] of one component.
SHAPES = [(16, 3, 32, 32), (64, 1, 28, 28), (8, 3, 256, 256)]
EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}
SEED, NUMBER = 7, 3

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


def step_cells(
    op: str, step: RowStep, formula: Formula, *, components: int = 1, branches: int = 1, variant: str = ""
) -> Iterator[Cell]:
    """Yields the cells of a step: it makes its own noise, its peers are given theirs by `torch.randn`.

    Args:
        op: name of the step.
        step: to be measured.
        formula: function of z [B, K·C, ...], the output [G·B, C, ...] and ξ like z, in PyTorch, which returns the new
            state. The step is checked against it in float64.
        components: K.
        branches: G of the output.
        variant: of the cells.
    """
    for dtype in EPSILON:
        for shape in SHAPES:
            make = partial(_work, step, formula, components, branches, shape, dtype)
            yield Cell(op, "×".join(map(str, shape)), dtype, make, variant, operator="linear_step")


def _work(
    step: RowStep,
    formula: Formula,
    components: int,
    branches: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Work:
    batch, channels, *rest = shape
    generator = torch.Generator().manual_seed(0)
    state = (batch, components * channels, *rest)
    z = torch.randn(state, generator=generator).to(device, dtype)
    output = torch.randn((branches * batch, *shape[1:]), generator=generator).to(device, dtype)
    out, indices = torch.empty_like(z), torch.arange(batch, device=device)
    table = step.table
    noisy = bool(table[0, layout.Columns(components).C].any())

    def error(_: object) -> float:
        if noisy:
            noise = reference_normal(SEED, indices, NUMBER, z[0].numel(), STEP).view(z.shape)
        else:
            noise = torch.zeros_like(z, dtype=torch.float64)
        expected = formula(z.double(), output.double(), noise)
        size = formula(z.double().abs(), output.double().abs(), noise.abs()).abs() + expected.abs()
        tolerance = 32 * 2.0**-23 * (1 + size.max()) + EPSILON[dtype] * expected.abs()
        return float(((out.double() - expected).abs() / tolerance).max())

    fused = compiled(formula)
    none = torch.zeros((), dtype=dtype, device=device)

    def noise_of_torch() -> Tensor:
        return torch.randn_like(z) if noisy else none

    peers: dict[str, Callable[[], object]] = {
        "torch.compile": lambda: fused(z, output, noise_of_torch()),
        "eager": lambda: formula(z, output, noise_of_torch()),
    }
    least = (2 * z.numel() + output.numel()) * z.element_size()
    keywords = {"seed": SEED, "step": NUMBER, "indices": indices, "out": out}
    native: tuple[Any, ...] = (out, z, z, output, table, 0, None, -1, [], SEED, indices, None, None)
    return Work(step, (z, output), keywords, peers, error, least, explained=native)
