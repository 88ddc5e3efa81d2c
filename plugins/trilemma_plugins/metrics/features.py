"""The shipped feature networks: classifiers whose penultimate activations are the features."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trilemma.errors import TrilemmaError
from trilemma.files.regular import file_inside
from trilemma.files.toml import read_toml
from trilemma.files.weights import Misfit, WeightsFile
from trilemma.interfaces.metric import Observation
from trilemma_plugins.metrics.image_network import ImageNetwork
from trilemma_plugins.metrics.network import DigitNetwork

# Images whose activations stay in the cache.
CHUNK = 100


class ClassifierFeatures:
    """The penultimate activations of a classifier.

    Args:
        folder: where `features.toml` and the weights lie; the shipped ones by default.

    Raises:
        TrilemmaError: for a missing or unreadable card or weights, or weights whose sha256 is not the card's.
    """

    architecture: ClassVar[type[nn.Module]]
    shipped: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    def __init__(self, folder: str | None = None) -> None:
        home = Path(folder) if folder else Path(str(files("trilemma_plugins.metrics") / self.shipped))
        self.card = _card(home)
        digest = self.card["weights"]["sha256"]
        self.name = self.card["network"]["name"]
        self.identity = f"{self.name} sha256:{digest[:16]}"
        # The weights are read: no initial ones are drawn.
        with torch.device("meta"):
            self.network = self.architecture().eval()
        self.network.load_state_dict(
            _weights(home, self.card["weights"]["file"], digest, self.network), assign=True
        )
        self.network.requires_grad_(False)
        # Three times as fast on a CPU.
        self.network.to(memory_format=torch.channels_last)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether it takes images of a shape (C, H, W)."""
        raise NotImplementedError

    @torch.inference_mode()
    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Returns features [B, D] and logits [B, 10] of images [B, C, H, W] in [-1, 1].

        Raises:
            TrilemmaError: for images of a shape that it does not take.
        """
        shape = tuple(images.shape[1:])
        if not self.takes(shape):
            raise TrilemmaError(
                f"{self.name} takes no images of shape {shape}; evaluate with a feature network that does (--features)"
            )
        pixels = images.to("cpu", torch.float32).contiguous(memory_format=torch.channels_last)
        answers = [self.network(chunk) for chunk in pixels.split(CHUNK)]
        features, logits = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return Observation(features, logits, labels)


class MnistFeatures(ClassifierFeatures):
    """The penultimate activations (64) of a classifier trained on the 60,000 training images of MNIST.

    Args:
        folder: where `features.toml` and the weights lie; the shipped ones by default.

    Raises:
        TrilemmaError: for a missing or unreadable card or weights, or weights whose sha256 is not the card's.
    """

    architecture = DigitNetwork
    shipped = "weights"
    classes = tuple("0123456789")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape (C, H, W) is that of MNIST."""
        return tuple(shape) == (1, 28, 28)


class ImageFeatures(ClassifierFeatures):
    """The penultimate activations (192) of a classifier of CIFAR-10; images of any size are resized to 32×32.

    Args:
        folder: where `features.toml` and the weights lie; the shipped ones by default.

    Raises:
        TrilemmaError: for a missing or unreadable card or weights, or weights whose sha256 is not the card's.
    """

    architecture = ImageNetwork
    shipped = "image_weights"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape (C, H, W) has one or three channels."""
        return len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0


def _card(home: Path) -> dict[str, Any]:
    path = home / "features.toml"
    try:
        card = read_toml(path)
        named = [card["network"]["name"], card["weights"]["file"], card["weights"]["sha256"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable("card", path, error) from error
    if card.get("format") != 1:
        raise TrilemmaError(f"{path} has format {card.get('format')!r}, expected 1; update the package")
    if not all(isinstance(entry, str) for entry in named):
        raise TrilemmaError(f"{path} names its network or weights by no text; reinstall the package")
    return card


def _weights(home: Path, file: str, digest: str, network: nn.Module) -> dict[str, Tensor]:
    path = home / file
    try:
        with WeightsFile(file_inside(home, file)) as weights:
            if weights.sha256() != digest:
                raise TrilemmaError(
                    f"{path} does not have the sha256 its card states ({digest[:16]}…); reinstall the package"
                )
            return {name: tensor.float() for name, tensor in weights.read(network).items()}
    except Misfit as error:
        raise TrilemmaError(
            f"{path} does not hold the weights of {type(network).__name__}: {error}; reinstall the package"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable("weights", path, error) from error


def _unreadable(part: str, path: Path, error: Exception) -> TrilemmaError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return TrilemmaError(f"cannot read the feature network's {part} {path}: {reason}; reinstall the package")
