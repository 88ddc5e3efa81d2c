"""A small autoencoder of images of a few pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder, bounded


class SmallCoder(Autoencoder):
    """Codes of half the sides: two convolutions down and two up, without normalisation.

    Args:
        shape: (C, H, W) of the images, of even sides.
        channels: of the codes.
        width: of the layers between.

    Raises:
        UsageError: for a number below 1 or odd sides.
    """

    def __init__(self, shape: Sequence[int], *, channels: int = 2, width: int = 32) -> None:
        channels = checked_integer(channels, "small-coder: channels", 1, what="is no number of channels")
        width = checked_integer(width, "small-coder: width", 1, what="is no number of channels")
        super().__init__(shape, channels)
        self.code_shape(shape)
        self.down = nn.Conv2d(self.shape[0], width, 4, stride=2, padding=1)
        self.statistics = nn.Conv2d(width, 2 * channels, 3, padding=1)
        self.spread = nn.Conv2d(channels, width, 3, padding=1)
        self.up = nn.ConvTranspose2d(width, self.shape[0], 4, stride=2, padding=1)

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Returns (c, H/2, W/2)."""
        _, height, width = shape
        if height % 2 or width % 2:
            raise UsageError(f"small-coder: images of {height}×{width} have odd sides; give even ones")
        return len(self.code_mean), height // 2, width // 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance [B, c, H/2, W/2] of the codes of images x."""
        mean, log_variance = self.statistics(silu(self.down(x))).chunk(2, 1)
        return mean, bounded(log_variance)

    def decode(self, code: Tensor) -> Tensor:
        """Returns the images of codes, in (−1, 1)."""
        return torch.tanh(self.up(silu(self.spread(code))))
