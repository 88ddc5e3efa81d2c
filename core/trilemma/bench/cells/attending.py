"""`attention`: from the packed projection to the input of the next layer, in both memory formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from trilemma.bench.cell import Cell, Work
from trilemma.ops import attention

# Relative to the largest value.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
CHANNELS, BATCH = 128, 4
# (batch, heads, tokens, depth)
SHAPES = [
    (16, 16, 256, 8),
    *(
        (BATCH, CHANNELS // depth, tokens, depth)
        for depth in (8, 32, 64, 128)
        for tokens in (16, 64, 256, 1024)
    ),
]


def attention_cells() -> Iterator[Cell]:
    for dtype in TOLERANCE:
        for layout in ("tokens", "map"):
            for shape in SHAPES:
                make = partial(_work, shape, dtype, layout)
                # Where PyTorch was measured to be faster, the operator hands over to it.
                yield Cell("attention", "×".join(map(str, shape)), dtype, make, layout, may_hand_over=True)


def _views(packed: Tensor, layout: str) -> tuple[Tensor, ...]:
    """q, k and v [B, H, L, D] of a projection [B, L, 3, H, D] (tokens) or [B, 3, H, D, L] (map)."""
    return (
        packed.permute(2, 0, 3, 1, 4).unbind() if layout == "tokens" else packed.transpose(-1, -2).unbind(1)
    )


def _sdpa_of_a_copy(packed: Tensor, layout: str) -> Tensor:
    order = (2, 0, 3, 1, 4) if layout == "tokens" else (1, 0, 2, 4, 3)
    q, k, v = packed.permute(order).contiguous().unbind()
    return sdpa(q, k, v)


def _delivered(out: Tensor, layout: str) -> Tensor:
    """[B, L, H·D] or [B, H·D, L], free where the memory already lies so."""
    return out.transpose(1, 2).flatten(2) if layout == "tokens" else out.transpose(2, 3).flatten(1, 2)


def _work(shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: torch.device) -> Work:
    batch, heads, tokens, depth = shape
    size = (batch, tokens, 3, heads, depth) if layout == "tokens" else (batch, 3, heads, depth, tokens)
    packed = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    q, k, v = _views(packed, layout)

    def error(found: Tensor) -> float:
        # One sample is enough.
        a, b, c = (tensor[:1].double() for tensor in (q, k, v))
        expected = _delivered(torch.softmax(a @ b.mT * depth**-0.5, -1) @ c, layout)
        return float((found[:1] - expected).abs().max() / (TOLERANCE[dtype] * expected.abs().max()))

    peers: dict[str, Callable[[], object]] = {
        "SDPA": lambda: _delivered(sdpa(q, k, v), layout),
        "SDPA, copied": lambda: _delivered(_sdpa_of_a_copy(packed, layout), layout),
    }
    least = packed.numel() * packed.element_size() * 4 // 3
    operations = 4 * batch * heads * tokens * tokens * depth
    return Work(
        attention,
        (q, k, v),
        {},
        peers,
        error,
        least,
        operations,
        explained=(q, k, v, None),
        doing=lambda operator: lambda: _delivered(operator(q, k, v), layout),
    )
