"""The MNIST classifier whose penultimate activations are the feature space of the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from trilemma.errors import UsageError
from trilemma.interfaces.features import Features

SHAPE = (1, 28, 28)
NAMES = tuple("0123456789")
FEATURES = 64
CLASSES = len(NAMES)


class DigitNetwork(Features):
    r"""Three 3×3 convolutions and two linear layers.

        h = relu(maxpool(conv(h)))   three times, 28 → 14 → 7 → 3
        features = relu(W₁ vec(h) + b₁)   ∈ R⁶⁴,      logits = W₂ features + b₂   ∈ R¹⁰

    Args of the call:
        images: [B, 1, 28, 28], pixels in [-1, 1].

    Args:
        shape: of the images, (1, 28, 28).
        classes: their names, ten.
        normalised: follow every layer but the last by a batch normalisation, as in training; the shipped weights are
            those of the network without, which computes the same.

    Raises:
        UsageError: for another shape or number of classes.
    """

    def __init__(
        self, shape: Sequence[int] = SHAPE, classes: Sequence[str] = NAMES, normalised: bool = False
    ) -> None:
        super().__init__(shape, classes)
        if self.shape != SHAPE or len(self.classes) != CLASSES:
            raise UsageError(
                f"the digit network is for {CLASSES} classes of images of shape {SHAPE}, got {len(self.classes)} of "
                f"{self.shape}; choose another network"
            )
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1)
        self.conv3 = nn.Conv2d(48, 96, 3, padding=1)
        self.embed = nn.Linear(96 * 3 * 3, FEATURES)
        self.classify = nn.Linear(FEATURES, CLASSES)
        widths = (32, 48, 96) if normalised else ()
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.last_norm = nn.BatchNorm1d(FEATURES) if normalised else nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Returns the penultimate activations, [B, 64]."""
        h = images
        for level, convolution in enumerate((self.conv1, self.conv2, self.conv3)):
            h = convolution(h)
            if self.norms:
                h = self.norms[level](h)
            h = relu(max_pool2d(h, 2))
        return relu(self.last_norm(self.embed(h.flatten(1))))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features [B, 64] and the class logits [B, 10]."""
        features = self.features(images)
        return features, self.classify(features)
