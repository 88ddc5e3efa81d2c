"""`group_norm_act`: GroupNorm and SiLU, forward and backward, in both memory formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.bench.cell import Cell, Work, compiled
from trilemma.ops import group_norm_act

SHAPES = [(16, 128, 8, 8), (16, 64, 32, 32), (8, 128, 64, 64), (8, 256, 64, 64), (4, 128, 128, 128)]
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
GROUPS, EPS = 32, 1e-5
# Relative to the largest value.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
GRID = [(shape, dtype, memory_format) for dtype in TOLERANCE for shape in SHAPES for memory_format in FORMATS]


def group_norm_act_cells() -> Iterator[Cell]:
    for shape, dtype, memory_format in GRID:
        make = partial(_forward, shape, dtype, memory_format)
        yield Cell("group_norm_act", "×".join(map(str, shape)), dtype, make, memory_format)


def group_norm_act_backward_cells() -> Iterator[Cell]:
    for shape, dtype, memory_format in GRID:
        make = partial(_backward, shape, dtype, memory_format)
        yield Cell("group_norm_act_backward", "×".join(map(str, shape)), dtype, make, memory_format)


def _eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight.to(x.dtype), bias.to(x.dtype), EPS))


def _in_place(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight.to(x.dtype), bias.to(x.dtype), EPS), inplace=True)


def _by(operator: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda x, weight, bias: operator(x, GROUPS, weight, bias, eps=EPS, silu=True)


def _given(
    shape: tuple[int, ...], dtype: torch.dtype, memory_format: str, device: torch.device
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(device, dtype).to(memory_format=FORMATS[memory_format])
    weight, bias = 0.5 + torch.rand(shape[1], generator=generator), torch.randn(shape[1], generator=generator)
    return [x, weight.to(device), bias.to(device)]


def _forward(shape: tuple[int, ...], dtype: torch.dtype, memory_format: str, device: torch.device) -> Work:
    given = _given(shape, dtype, memory_format, device)

    def error(y: Tensor) -> float:
        expected = _eager(*(tensor.double() for tensor in given))
        return float((y - expected).abs().max() / (TOLERANCE[dtype] * expected.abs().max()))

    fast = compiled(_eager)
    peers: dict[str, Callable[[], object]] = {
        "torch.compile": lambda: fast(*given),
        "eager, in place": lambda: _in_place(*given),
        "eager": lambda: _eager(*given),
    }
    least = 2 * given[0].numel() * given[0].element_size()
    explained = (given[0], GROUPS, *given[1:], None, None, None, EPS, True)
    return Work(
        group_norm_act,
        (),
        {},
        peers,
        error,
        least,
        explained=explained,
        doing=lambda operator: partial(_by(operator), *given),
    )


def _backward(shape: tuple[int, ...], dtype: torch.dtype, memory_format: str, device: torch.device) -> Work:
    given = _given(shape, dtype, memory_format, device)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(given[0])
    dy = dy.to(memory_format=FORMATS[memory_format])

    def prepared(function: Callable[..., Tensor], dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        leaves = [tensor.to(dtype or tensor.dtype, copy=True).requires_grad_() for tensor in given]
        with torch.enable_grad():
            return function(*leaves), leaves, dy.to(dtype or dy.dtype)

    def gradients(y: Tensor, leaves: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        """All of autograd's work, for every contender."""
        return torch.autograd.grad(y, leaves, dy, retain_graph=True)

    def error(found: tuple[Tensor, ...]) -> float:
        wanted = gradients(*prepared(_eager, torch.float64))
        ratios = [
            (a - b).abs().max() / (TOLERANCE[dtype] * b.abs().max())
            for a, b in zip(found, wanted, strict=True)
        ]
        return float(max(ratios))

    peers: dict[str, Callable[[], object]] = {
        "torch.compile": partial(gradients, *prepared(compiled(_eager))),
        "eager, in place": partial(gradients, *prepared(_in_place)),
        "eager": partial(gradients, *prepared(_eager)),
    }
    least = 3 * given[0].numel() * given[0].element_size()
    statistics = torch.zeros(shape[0], GROUPS, device=device)
    explained = (dy, given[0], statistics, statistics, GROUPS, *given[1:], None, None, True, [True] * 5)
    return Work(
        group_norm_act,
        (),
        {},
        peers,
        error,
        least,
        explained=explained,
        doing=lambda operator: partial(gradients, *prepared(_by(operator))),
    )
