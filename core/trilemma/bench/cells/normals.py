"""`keyed_normal`: standard normals by key."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from trilemma.bench.cell import Cell, Work
from trilemma.numerics.normal import STEP, reference_normal
from trilemma.ops import keyed_normal

SHAPES = [(16, 3 * 32 * 32), (64, 3 * 64 * 64), (8, 3 * 512 * 512)]
# Elements of a sample that are compared with the definition.
CHECKED = 4096


def keyed_normal_cells() -> Iterator[Cell]:
    for shape in SHAPES:
        yield Cell("keyed_normal", "×".join(map(str, shape)), torch.float32, partial(_work, shape))


def _work(shape: tuple[int, int], device: torch.device) -> Work:
    out, indices = torch.empty(shape, device=device), torch.arange(shape[0], device=device)
    other = torch.empty(shape, device=device)

    def error(_: None) -> float:
        exact = reference_normal(7, indices, 3, min(CHECKED, shape[1]), STEP)
        unit = 2.0**-23 * 2.0 ** exact.abs().log2().floor()
        return float(((out[:, : exact.shape[1]].double() - exact).abs() / (4 * unit)).max())

    peers = {"torch.randn": lambda: torch.randn(shape, device=device), "normal_": other.normal_}
    key = {"seed": 7, "step": 3, "stream": STEP}
    return Work(keyed_normal, (out, indices), key, peers, error, out.numel() * out.element_size())
