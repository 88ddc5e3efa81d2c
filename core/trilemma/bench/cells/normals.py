"""`keyed_normal`: standard normals by key."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from trilemma.bench.cell import OURS, Cell, Work
from trilemma.noise.normal import STEP, reference_normal
from trilemma.ops import explain, keyed_normal

SHAPES = [(16, 3 * 32 * 32), (64, 3 * 64 * 64), (8, 3 * 512 * 512)]
CHECKED = 4096  # elements of a sample that are compared with the definition


def keyed_normal_cells() -> Iterator[Cell]:
    for shape in SHAPES:
        yield Cell("keyed_normal", "×".join(map(str, shape)), torch.float32, partial(_work, shape))


def _work(shape: tuple[int, int], device: torch.device) -> Work:
    out, indices = torch.empty(shape, device=device), torch.arange(shape[0], device=device)
    other = torch.empty(shape, device=device)

    def ours() -> None:
        keyed_normal(out, indices, seed=7, step=3, stream=STEP)

    def error() -> float:
        exact = reference_normal(7, indices, 3, min(CHECKED, shape[1]), STEP)
        unit = 2.0**-23 * 2.0 ** exact.abs().log2().floor()
        return float(((out[:, : exact.shape[1]].double() - exact).abs() / (4 * unit)).max())

    contenders = {
        OURS: ours,
        "torch.randn": lambda: torch.randn(shape, device=device),
        "normal_": other.normal_,
    }
    backend = explain("keyed_normal", out, indices, seed=7, step=3, stream=STEP).backend
    return Work(contenders, error, out.numel() * out.element_size(), backend)
