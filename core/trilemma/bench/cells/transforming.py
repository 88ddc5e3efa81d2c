"""`layer_norm` with the modulation of adaLN, and `glu`: the parts of a transformer beside its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.bench.cell import Cell, Work, compiled
from trilemma.ops import glu, layer_norm

TOKENS = [(16, 64, 256), (2, 256, 1152), (2, 1024, 1536)]
HALVES = [(16, 64, 1024), (2, 1024, 1280), (2, 1024, 2560)]
# Relative to the largest value.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
ACTIVATIONS = {"GEGLU": False, "SwiGLU": True}
EPS = 1e-6


def layer_norm_cells() -> Iterator[Cell]:
    yield from _norm_cells("layer_norm", False)


def layer_norm_backward_cells() -> Iterator[Cell]:
    yield from _norm_cells("layer_norm_backward", True)


def glu_cells() -> Iterator[Cell]:
    yield from _glu_cells("glu", False)


def glu_backward_cells() -> Iterator[Cell]:
    yield from _glu_cells("glu_backward", True)


def _norm_cells(op: str, backward: bool) -> Iterator[Cell]:
    for dtype in TOLERANCE:
        for shape in TOKENS:
            for modulated in (False, True):
                make = partial(_normalising, shape, dtype, modulated, backward)
                yield Cell(op, "×".join(map(str, shape)), dtype, make, "modulated" if modulated else "affine")


def _glu_cells(op: str, backward: bool) -> Iterator[Cell]:
    for dtype in TOLERANCE:
        for shape in HALVES:
            for name, silu in ACTIVATIONS.items():
                make = partial(_gating, shape, dtype, silu, backward)
                yield Cell(op, "×".join(map(str, shape)), dtype, make, name)


def _normalising(
    shape: tuple[int, ...], dtype: torch.dtype, modulated: bool, backward: bool, device: torch.device
) -> Work:
    generator = torch.Generator().manual_seed(0)
    # Of a transformer's block: a plain norm has weight and bias, a modulated one scale and shift of each sample.
    sizes = (shape[0], shape[-1]) if modulated else shape[-1:]
    given = [torch.randn(size, generator=generator).to(device, dtype) for size in (shape, sizes, sizes)]

    def ours(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if modulated:
            return lambda x, scale, shift: operator(x, scale=scale, shift=shift, eps=EPS)
        return lambda x, weight, bias: operator(x, weight, bias, eps=EPS)

    def eager(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if modulated:
            return F.layer_norm(x, x.shape[-1:], None, None, EPS) * (1 + first[:, None]) + second[:, None]
        return F.layer_norm(x, x.shape[-1:], first, second, EPS)

    maps = (None, None, *given[1:]) if modulated else (*given[1:], None, None)
    explained: tuple[Any, ...] = (given[0], *maps, EPS)
    if backward:
        statistics = torch.zeros(shape[:-1], device=device)
        explained = (given[0], given[0], statistics, statistics, *maps, [True] * 5)
    return _work(layer_norm, ours, eager, given, dtype, backward, explained, (2, 3))


def _gating(
    shape: tuple[int, ...], dtype: torch.dtype, silu: bool, backward: bool, device: torch.device
) -> Work:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((*shape[:-1], 2 * shape[-1]), generator=generator).to(device, dtype)

    def ours(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return partial(operator, silu=silu)

    def eager(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * (F.silu(gate) if silu else F.gelu(gate))

    explained = (x[..., : shape[-1]], x, silu) if backward else (x, silu)
    # In halves of x.
    return _work(glu, ours, eager, [x], dtype, backward, explained, (1.5, 2.5))


def _work(
    operator: Callable[..., Tensor],
    ours: Callable[[Callable[..., Tensor]], Callable[..., Tensor]],
    eager: Callable[..., Tensor],
    given: Sequence[Tensor],
    dtype: torch.dtype,
    backward: bool,
    explained: tuple[Any, ...],
    passes: tuple[float, float],
) -> Work:
    """The work of an operator's values, or of all that autograd does for its gradients.

    `passes`: over the first of the tensors given, at least, of the one and of the other.
    """

    def prepared(function: Callable[..., Tensor], dtype: torch.dtype | None = None) -> Callable[[], Any]:
        if not backward:
            return lambda: function(*(tensor.to(dtype or tensor.dtype) for tensor in given))
        leaves = [tensor.to(dtype or tensor.dtype, copy=True).requires_grad_() for tensor in given]
        with torch.enable_grad():
            y = function(*leaves)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)

    def error(found: Any) -> float:
        pairs = [(found, prepared(eager, torch.float64)())]
        pairs = list(zip(*pairs[0], strict=True)) if backward else pairs
        return float(max((a - b).abs().max() / (TOLERANCE[dtype] * b.abs().max()) for a, b in pairs))

    peers = {"torch.compile": prepared(compiled(eager)), "eager": prepared(eager)}
    least = int(passes[backward] * given[0].numel() * given[0].element_size())
    return Work(
        operator,
        (),
        {},
        peers,
        error,
        least,
        explained=explained,
        doing=lambda function: prepared(ours(function)),
    )
