"""The MNIST classifier whose penultimate activations are the feature space of the metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from trilemma.errors import UsageError
from trilemma.interfaces.features import Features

SHAPE = (1, 28, 28)
NAMES = tuple("0123456789")
FEATURES = 64
CLASSES = len(NAMES)


class DigitNetwork(Features):
    r"""Three 3×3 convolutions and two linear layers; the normalisation is folded into their weights.

        h = relu(maxpool(conv(h)))   three times, 28 → 14 → 7 → 3
        features = relu(W₁ vec(h) + b₁)   ∈ R⁶⁴,      logits = W₂ features + b₂   ∈ R¹⁰

    Args of the call:
        images: [B, 1, 28, 28], pixels in [-1, 1].

    Args:
        shape: of the images, (1, 28, 28).
        classes: their names, ten.

    Raises:
        UsageError: for another shape or number of classes.
    """

    def __init__(self, shape: Sequence[int] = SHAPE, classes: Sequence[str] = NAMES) -> None:
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

    def features(self, images: Tensor) -> Tensor:
        """Returns the penultimate activations, [B, 64]."""
        h = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            h = relu(max_pool2d(convolution(h), 2))
        return relu(self.embed(h.flatten(1)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features [B, 64] and the class logits [B, 10]."""
        features = self.features(images)
        return features, self.classify(features)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Returns the fraction of `images` (uint8, [N, 1, 28, 28]) to which `network` gives the class of `labels`."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = images[start : start + batch].float() / 127.5 - 1
            right += int((network(pixels)[1].argmax(1) == labels[start : start + batch]).sum())
    return right / len(images)
