"""`conv3x3`: the convolutions of small U-Nets, with the filters transformed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from trilemma.bench.cell import Cell, Work
from trilemma.ops.convolution import conv3x3, transformed

# Relative to the largest value.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 8e-3}
# (batch, in channels, height and width, out channels)
SHAPES = [
    *((1, 128, 8, 128), (1, 128, 32, 128), (16, 64, 32, 64), (16, 128, 16, 128), (16, 128, 8, 128)),
    *((16, 256, 16, 128), (64, 48, 28, 48), (4, 128, 64, 128), (1, 64, 256, 64)),
]
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def conv3x3_cells() -> Iterator[Cell]:
    for dtype in TOLERANCE:
        for layout in FORMATS:
            for shape in SHAPES:
                make = partial(_work, shape, dtype, layout)
                yield Cell("conv3x3", "×".join(map(str, shape)), dtype, make, layout)


def _work(shape: tuple[int, int, int, int], dtype: torch.dtype, layout: str, device: torch.device) -> Work:
    batch, incoming, side, outgoing = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, incoming, side, side, generator=generator).to(device, dtype)
    x = x.contiguous(memory_format=FORMATS[layout])
    weight = (torch.randn(outgoing, incoming, 3, 3, generator=generator) / (9 * incoming) ** 0.5).to(
        device, dtype
    )
    bias = torch.randn(outgoing, generator=generator).to(device, dtype)
    filters = transformed(weight)
    stored = weight.contiguous(memory_format=FORMATS[layout])

    def error(found: Tensor) -> float:
        expected = torch.conv2d(x[:1].double(), weight.double(), bias.double(), padding=1)
        return float((found[:1] - expected).abs().max() / (TOLERANCE[dtype] * expected.abs().max()))

    peers: dict[str, Callable[[], object]] = {"conv2d": lambda: torch.conv2d(x, stored, bias, padding=1)}
    least = (x.numel() + batch * side * side * outgoing + weight.numel()) * x.element_size()
    operations = 2 * 9 * batch * side * side * incoming * outgoing
    return Work(
        conv3x3,
        (x, weight, bias),
        {"filters": filters},
        peers,
        error,
        least,
        operations,
        explained=(x, weight, bias, filters),
    )
