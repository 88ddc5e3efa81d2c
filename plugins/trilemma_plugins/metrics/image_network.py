"""The classifier of colour images whose penultimate activations are a feature space of the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from trilemma.checks import checked_integer
from trilemma.interfaces.features import Features
from trilemma.numerics.patches import unshuffled

SIDE = 32
WIDTHS = (32, 64, 128, 192)
FEATURES = WIDTHS[-1]
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = len(NAMES)


class ImageNetwork(Features):
    r"""Eight 3×3 convolutions, two residual pairs among them, and a linear layer, on images of 32×32 places.

        h = relu(conv(x));   three times h = maxpool(relu(conv(h))), 32 → 16 → 8 → 4, with
        h = h + relu(conv(relu(conv(h)))) after the first and the third
        features = mean over the 4×4 places of h ∈ R¹⁹²,      logits = W features + b ∈ R^classes

    Args:
        shape: of the images that it is trained on; it takes those of any size.
        classes: their names; () for a network without logits.
        normalised: follow every convolution by a batch normalisation, as in training; the shipped weights are those of
            the network without, which computes the same.
        patch: side p of the pixel-unshuffled patches: images are resized to 32p×32p.

    Raises:
        UsageError: for a patch below 1.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, SIDE, SIDE),
        classes: Sequence[str] = NAMES,
        normalised: bool = False,
        patch: int = 1,
    ) -> None:
        super().__init__(shape, classes)
        self.patch = checked_integer(patch, "image-network: patch", 1, what="is no side of a patch")
        first, second, third, last = WIDTHS

        def layer(incoming: int, outgoing: int) -> nn.Sequential:
            norm = nn.BatchNorm2d(outgoing) if normalised else nn.Identity()
            return nn.Sequential(nn.Conv2d(incoming, outgoing, 3, padding=1), norm)

        self.stem = layer(3 * patch**2, first)
        self.down = nn.ModuleList([layer(first, second), layer(second, third), layer(third, last)])
        self.pairs = nn.ModuleDict(
            {
                str(level): nn.ModuleList([layer(width, width), layer(width, width)])
                for level, width in ((0, second), (2, last))
            }
        )
        self.classify = nn.Linear(last, len(self.classes)) if self.classes else None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape (C, H, W) has one or three channels."""
        return len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0

    def features(self, images: Tensor) -> Tensor:
        """Returns the penultimate activations [B, 192] of images [B, 1 or 3, H, W] in [-1, 1], resized to 32p×32p."""
        h = relu(self.stem(unshuffled(resized(images, SIDE * self.patch), self.patch)))
        for level, down in enumerate(self.down):
            h = max_pool2d(relu(down(h)), 2)
            if str(level) in self.pairs:
                pair = cast(nn.ModuleList, self.pairs[str(level)])
                h = h + relu(pair[1](relu(pair[0](h))))
        return h.mean((2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the features [B, 192] and the class logits [B, classes]."""
        features = self.features(images)
        return features, None if self.classify is None else self.classify(features)


def resized(images: Tensor, side: int = SIDE) -> Tensor:
    """Returns images [B, 3, side, side] of images [B, 1 or 3, H, W]: grey is repeated, sides are resized bilinearly.

    Downwards the bilinear filter is widened (antialiased); the ratio of the sides is not kept.
    """
    colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    if colour.shape[2:] == (side, side):
        return colour
    return interpolate(colour, (side, side), mode="bilinear", antialias=True, align_corners=False)
