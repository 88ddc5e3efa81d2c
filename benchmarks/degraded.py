"""Degraded versions of one picture: rows of `bsr`, `bsr-light` and `bsr-plus`, eight of each, enlarged to its size.

    python benchmarks/degraded.py --out docs/images/degraded.png

takes example 4,000 of the emoji in $TRILEMMA_DATA. The picture itself stands before each row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import trilemma
from trilemma.output.atomic import replacing
from trilemma.output.picture import encode_png, tile
from trilemma_plugins.bsr.degradation import VARIANTS, Degradation

A_ROW = 8
FACTOR = 4


def panel(picture: Tensor, seed: int) -> Tensor:
    """Returns one image uint8 [C, H', W'] of a picture [C, H, W] and its degraded versions."""
    cells = []
    for kind in VARIANTS:
        degraded = [Degradation(kind, FACTOR, seed)(picture, key) for key in range(A_ROW)]
        cells += [
            picture,
            *(made.repeat_interleave(FACTOR, 1).repeat_interleave(FACTOR, 2) for made in degraded),
        ]
    return tile(torch.stack(cells), A_ROW + 1, gap=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="images:root=emoji.zip")
    parser.add_argument("--index", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("degraded.png"))
    given = parser.parse_args()
    picture = trilemma.dataset(given.data).read(torch.tensor([given.index]))[0]
    record = {
        "data": given.data,
        "index": given.index,
        "seed": given.seed,
        "factor": FACTOR,
        "rows": list(VARIANTS),
    }
    with replacing(given.out) as file:
        file.write(encode_png(panel(picture, given.seed), record))


if __name__ == "__main__":
    main()
