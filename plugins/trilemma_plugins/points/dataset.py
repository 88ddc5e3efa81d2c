"""Points of a mixture of normals on a ring or a grid."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma_plugins.points.law import Layout, entropy, grid_law, laid_out, rounded

MOST_MODES = 10_000
MOST_POINTS = 10_000_000
MOST_SEED = 2**32 - 1


class Mixture2D(InMemoryDataset):
    """Points of normals of deviation s, centred on a ring or a grid, as images of two channels and one pixel.

    They are rounded to 256 levels as images are, x = 2u/255 − 1, so that likelihoods are in bits per dimension and the
    best that any model can reach, `entropy`, is known. The label of a point is its mode; the modes take turns.

    Args:
        split: "train" or "test": other draws of the same law.
        modes: number of normals; a square for a grid.
        radius: of the ring, or half the side of the grid.
        deviation: s, of each coordinate.
        n: points in the split.
        seed: of the draws.
        layout: of the centres: ring or grid.

    Raises:
        UsageError: for an unknown split or layout, or a number out of range.
    """

    def __init__(
        self,
        split: str = "train",
        modes: int = 8,
        radius: float = 0.6,
        deviation: float = 0.04,
        n: int = 20_000,
        seed: int = 0,
        layout: Layout = "ring",
    ) -> None:
        if split not in ("train", "test"):
            raise UsageError(f"mixture2d: unknown split={split!r}; expected train or test")
        checked_integer(modes, "mixture2d: modes", 1, MOST_MODES)
        checked_integer(n, "mixture2d: n", 1, MOST_POINTS)
        checked_integer(seed, "mixture2d: seed", 0, MOST_SEED)
        if radius < 0 or not deviation > 0:
            raise UsageError(
                f"mixture2d: radius={radius!r}, deviation={deviation!r}; expected radius ≥ 0 and deviation > 0"
            )
        generator = torch.Generator().manual_seed(2 * seed + (split == "test"))
        self.centres, self.deviation = laid_out(layout, modes, radius), deviation
        labels = torch.arange(n) % modes
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        points = rounded(self.centres[labels] + deviation * noise)
        super().__init__(points.view(n, 2, 1, 1), labels, tuple(str(mode) for mode in range(modes)))
        self.split = split

    @cached_property
    def law(self) -> Tensor:
        """P(u, v) of a point whose mode is not known, float64 [256, 256]."""
        return grid_law(self.centres, self.deviation)

    @property
    def entropy(self) -> float:
        """Bits per dimension of the best model of this law."""
        return entropy(self.law)

    @property
    def surprisals(self) -> Tensor:
        """−log₂ P(u, v)/2 of every point, float64 [N], in bits per dimension: those of the best model."""
        u, v = self.images.flatten(1).long().unbind(1)
        return -self.law[u, v].log2() / 2

    def shares(self, points: Tensor, deviations: float = 3.0) -> Tensor:
        """Returns the share of points at each mode, float64 [modes]; they sum to one less the share of stray points.

        Args:
            points: [N, 2, 1, 1] in [−1, 1].
            deviations: a point is at the mode nearest to it if it lies within as many deviations, else it is stray.
        """
        x = points.flatten(1).to("cpu", torch.float64)
        distance, mode = torch.cdist(x, self.centres).min(1)
        near = mode[distance <= deviations * self.deviation]
        return near.bincount(minlength=len(self.centres)).double() / len(x)
