"""The shipped MNIST feature network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.evaluate.metric import Observation
from trilemma.reading.regular import file_inside
from trilemma.reading.toml import read_toml
from trilemma.reading.weights import Misfit, WeightsFile
from trilemma_plugins.metrics.network import DigitNetwork

CHUNK = 100  # images whose activations stay in the cache


class MnistFeatures:
    """The penultimate activations (64) of a classifier trained on the 60,000 training images of MNIST.

    Args:
        folder: where `features.toml` and the weights lie; the shipped ones by default.

    Raises:
        TrilemmaError: for a missing or unreadable card or weights, or weights whose sha256 is not the card's.
    """

    shape = (1, 28, 28)

    def __init__(self, folder: str | None = None) -> None:
        home = Path(folder) if folder else Path(str(files("trilemma_plugins.metrics") / "weights"))
        self.card = _card(home)
        digest = self.card["weights"]["sha256"]
        self.identity = f"{self.card['network']['name']} sha256:{digest[:16]}"
        with torch.device("meta"):  # the weights are read: draw no initial ones
            self.network = DigitNetwork().eval()
        self.network.load_state_dict(
            _weights(home, self.card["weights"]["file"], digest, self.network), assign=True
        )
        self.network.requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # three times as fast on a CPU

    @torch.inference_mode()
    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Features [B, 64] and logits [B, 10] of images [B, 1, 28, 28] in [-1, 1]."""
        if tuple(images.shape[1:]) != self.shape:
            raise TrilemmaError(
                f"mnist-features takes images of shape {self.shape}, got {tuple(images.shape[1:])}; "
                "evaluate with the feature network of the model's data (--features)"
            )
        pixels = images.to("cpu", torch.float32).contiguous(memory_format=torch.channels_last)
        answers = [self.network(chunk) for chunk in pixels.split(CHUNK)]
        features, logits = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return Observation(features, logits, labels)


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


def _weights(home: Path, file: str, digest: str, network: DigitNetwork) -> dict[str, Tensor]:
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
            f"{path} does not hold the weights of DigitNetwork: {error}; reinstall the package"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable("weights", path, error) from error


def _unreadable(part: str, path: Path, error: Exception) -> TrilemmaError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return TrilemmaError(f"cannot read the feature network's {part} {path}: {reason}; reinstall the package")
