"""A convolutional autoencoder whose every output depends on a neighbourhood of its place alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder, bounded
from trilemma.numerics.patches import unshuffled
from trilemma_plugins.autoencoder.blocks import ResidualBlock

FACTORS = (2, 4, 8)


class AutoencoderKL(Autoencoder):
    """Codes [c, H/f, W/f] of images [C, H, W], as Gaussians: residual blocks, strided convolutions, and their mirror.

    With L widths, the first layer unshuffles patches of p×p pixels, p = f/2^{L−1}, and every further level halves the
    sides; the last layer shuffles them back. Features are normalised over the channels of a place. Nothing is
    normalised or attended over places, as it is in the published network: a decoded place depends on the codes within
    `reach` alone, so that a large image can be decoded tile by tile, and no place of the codes can carry the scale of
    all others.

    Args:
        shape: (C, H, W) of the images; H and W multiples of f.
        channels: c of the codes.
        factor: f, 2, 4 or 8.
        widths: of the levels, finest first.
        blocks: residual blocks of a level in the encoder; the decoder has one more.

    Raises:
        UsageError: for another f, more levels than it has halvings, a number below 1, or sides that f does not divide.

    References:
        Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, arXiv:2112.10752.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: int = 4,
        factor: int = 4,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
    ) -> None:
        channels = checked_integer(channels, "autoencoder-kl: channels", 1, what="is no number of channels")
        blocks = checked_integer(blocks, "autoencoder-kl: blocks", 1, what="is no number of blocks")
        if factor not in FACTORS:
            raise UsageError(f"autoencoder-kl: factor={factor!r} is no downsampling; give 2, 4 or 8")
        widths = tuple(
            checked_integer(width, "autoencoder-kl: width", 1, what="is no width") for width in widths
        )
        patch = factor // 2 ** (len(widths) - 1) if widths else 0
        if not patch:
            most = FACTORS.index(factor) + 2
            raise UsageError(
                f"autoencoder-kl: widths={list(widths)} has {len(widths)} levels; give 1 to {most} for factor={factor}"
            )
        super().__init__(shape, channels)
        self.factor, self.patch = factor, patch
        self.code_shape(self.shape)
        pixels, last = self.shape[0] * patch**2, widths[-1]
        self.encoder = nn.Sequential(nn.Conv2d(pixels, widths[0], 3, padding=1))
        for level, width in enumerate(widths):
            if level:
                self.encoder.append(nn.Conv2d(widths[level - 1], width, 4, stride=2, padding=1))
            self.encoder.extend(ResidualBlock(width) for _ in range(blocks))
        self.statistics = nn.Conv2d(last, 2 * channels, 1)
        self.decoder = nn.Sequential(nn.Conv2d(channels, last, 3, padding=1))
        for level, width in reversed(list(enumerate(widths))):
            self.decoder.extend(ResidualBlock(width) for _ in range(blocks + 1))
            if level:
                finer = widths[level - 1]
                self.decoder.extend([nn.Conv2d(width, 4 * finer, 1), nn.PixelShuffle(2)])
        self.outlet = nn.Conv2d(widths[0], pixels, 3, padding=1)

    @property
    def last_weight(self) -> Tensor:
        return self.outlet.weight

    @property
    def reach(self) -> int:
        """The most places from which a code reaches a decoded pixel, in places of the codes."""
        reach, scale = 0.0, 1.0
        for layer in (*self.decoder, self.outlet):
            match layer:
                case ResidualBlock():
                    reach += 2 * scale
                case nn.PixelShuffle():
                    scale /= 2
                case nn.Conv2d():
                    reach += (layer.kernel_size[0] - 1) // 2 * scale
        return int(-(-reach // 1))

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Returns (c, H/f, W/f)."""
        _, height, width = shape
        if height % self.factor or width % self.factor:
            raise UsageError(
                f"autoencoder-kl: images of {height}×{width} do not divide by factor={self.factor}; give other sides"
            )
        return len(self.code_mean), height // self.factor, width // self.factor

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance [B, c, H/f, W/f]; under autocast they are float32."""
        h = self.encoder(unshuffled(x, self.patch))
        with torch.autocast(h.device.type, enabled=False):
            mean, log_variance = self.statistics(h.to(self.statistics.weight.dtype)).chunk(2, 1)
        return mean, bounded(log_variance)

    def decode(self, code: Tensor) -> Tensor:
        """Returns the images of codes; nothing bounds their pixels."""
        return F.pixel_shuffle(self.outlet(self.decoder(code)), self.patch)
