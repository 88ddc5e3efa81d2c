"""The operators that choose, and the table of ways that a record becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

# As csrc/torch/choice.h has them.
UNMEASURED, NATIVE, PYTORCH = 0, 1, 2
REASONS: Final = {
    PYTORCH: "PyTorch was measured to be faster at this size",
    UNMEASURED: "it was not measured against PyTorch on this instruction set",
}
NAMES: Final = {"native": NATIVE, "pytorch": PYTORCH}
DTYPES: Final = ("float32", "bfloat16", "float16")
# Each of two sizes counts by the power of two that is nearest.
POWERS: Final = 32


@dataclass(frozen=True)
class Chosen:
    """An operator that has two ways.

    Attributes:
        layouts: the names of the two memory layouts it tells apart.
        sizes: the two sizes it tells apart.
        unmeasured: the way where no record knows.
        natively: whether the native library looks the way up; else the operator's Python function does.
    """

    layouts: tuple[str, str]
    sizes: tuple[str, str]
    unmeasured: int = NATIVE
    natively: bool = False


_FORMATS: Final = ("contiguous", "channels-last")
_ATTENTION: Final = Chosen(("map", "tokens"), ("tokens", "head dimension"), UNMEASURED, natively=True)
_TOKENS: Final = Chosen(("contiguous", "strided"), ("channels", "tokens of all samples"))
_NORMALIZATION: Final = Chosen(_FORMATS, ("elements of a channel", "channels of all samples"))
CHOSEN: Final = {
    "attention": _ATTENTION,
    "attention_backward": _ATTENTION,
    "conv3x3": Chosen(_FORMATS, ("pixels of all samples", "channels")),
    "group_norm_act": _NORMALIZATION,
    "group_norm_act_backward": _NORMALIZATION,
    "layer_norm": _TOKENS,
    "layer_norm_backward": _TOKENS,
    "glu": _TOKENS,
    "glu_backward": _TOKENS,
}
# Where PyTorch multiplies tiles of bfloat16, nothing of ours that was not measured beside it is taken.
STRONG_WITH_TILES: Final = frozenset(
    (op, "bfloat16") for op in ("attention", "attention_backward", "conv3x3")
)


def spread(cells: Iterable[tuple[tuple[int, int], int]]) -> bytes:
    """Returns the ways over powers of two of both sizes: of each the way of the nearest cell, the first of equals.

    Args:
        cells: pairs of the sizes and their way, at least one.

    Returns:
        A byte for each pair of powers, [POWERS, POWERS].
    """
    sizes, ways = zip(*cells, strict=True)
    at = np.log2(np.array(sizes, dtype=np.float64))
    powers = np.arange(POWERS, dtype=np.float64)
    first = np.abs(at[:, 0, None] - powers)[:, :, None]
    second = np.abs(at[:, 1, None] - powers)[:, None, :]
    nearest = (first + second).argmin(axis=0)
    return bytes(np.array(ways, dtype=np.uint8)[nearest].ravel().tolist())


def place(dtype: int, layout: int, first_squared: int, second_squared: int) -> int:
    """Returns the place of a call in a table, by the squares of its sizes: the nearest power is half of theirs."""
    first = min(first_squared.bit_length() // 2, POWERS - 1)
    second = min(second_squared.bit_length() // 2, POWERS - 1)
    return ((dtype * 2 + layout) * POWERS + first) * POWERS + second
