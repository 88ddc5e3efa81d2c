"""The discriminator of patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from trilemma.errors import UsageError

SLOPE = 0.2
# Sides are quartered by two convolutions.
SMALLEST = 4


class PatchDiscriminator(nn.Module):
    """One number for each of H/4 × W/4 overlapping patches of an image, without normalisation.

    Args:
        shape: (C, H, W) of the images.
        width: of the first layer; the second has twice, the third four times as many channels.

    References:
        Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, arXiv:1611.07004.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        if min(shape[1:]) < SMALLEST:
            raise UsageError(
                f"autoencoding: images of {shape[1]}×{shape[2]} have no patches to judge; set adversarial=0"
            )
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        """Returns numbers [B, 1, H/4, W/4] of images [B, C, H, W]: large for images of the data."""
        answer: Tensor = self.layers(images)
        return answer
