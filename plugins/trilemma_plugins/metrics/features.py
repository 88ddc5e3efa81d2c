"""The shipped feature networks, and others of the same architectures."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from trilemma.errors import TrilemmaError
from trilemma.interfaces.features import Features
from trilemma.interfaces.metric import Observation
from trilemma.models.loading import load_of
from trilemma_plugins.metrics.image_network import ImageNetwork
from trilemma_plugins.metrics.network import DigitNetwork


class ClassifierFeatures:
    """The penultimate activations of a classifier.

    Args:
        folder: a model directory of such a classifier; the shipped one by default.

    Raises:
        TrilemmaError: for a missing or damaged model, or one of another architecture.
    """

    architecture: ClassVar[type[nn.Module]]
    shipped: ClassVar[str]

    def __init__(self, folder: str | None = None) -> None:
        home = Path(folder) if folder else Path(__file__).parent / self.shipped
        self.network = load_of(Features, home)  # type: ignore[type-abstract]
        if not isinstance(self.network, self.architecture):
            raise TrilemmaError(
                f"{home} does not hold the weights of {self.architecture.__name__}; give a folder that does"
            )
        self.card, self.name, self.identity = (
            self.network.card or {},
            self.network.name,
            self.network.identity,
        )
        self.classes = self.network.classes

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether it takes images of a shape (C, H, W)."""
        return self.network.takes(shape)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Returns features [B, D] and logits [B, 10] of images [B, C, H, W] in [-1, 1].

        Raises:
            TrilemmaError: for images of a shape that it does not take.
        """
        return self.network.observe(images, labels)


class MnistFeatures(ClassifierFeatures):
    """The penultimate activations (64) of a classifier trained on the 60,000 training images of MNIST.

    Args:
        folder: a model directory of such a classifier; the shipped one by default.

    Raises:
        TrilemmaError: for a missing or damaged model, or one of another architecture.
    """

    architecture = DigitNetwork
    shipped = "weights"


class ImageFeatures(ClassifierFeatures):
    """The penultimate activations (192) of a classifier of CIFAR-10; images of any size are resized to 32×32.

    Args:
        folder: a model directory of such a classifier; the shipped one by default.

    Raises:
        TrilemmaError: for a missing or damaged model, or one of another architecture.
    """

    architecture = ImageNetwork
    shipped = "image_weights"
