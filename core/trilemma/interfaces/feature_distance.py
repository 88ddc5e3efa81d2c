"""The distance of images in the activations of a feature network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from trilemma.errors import UsageError
from trilemma.interfaces.features import Features


class FeatureDistance(nn.Module):
    """Mean over convolutions l and places of ‖u_l(x) − u_l(y)‖², u the outputs of a place at length 1.

    Args:
        network: whose convolutions they are.

    Raises:
        UsageError: for a network without convolutions.

    References:
        Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv:1801.03924, with
        equal weights of all channels.
    """

    def __init__(self, network: Features) -> None:
        super().__init__()
        self.network = network
        self._seen: list[Tensor] = []
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        if not layers:
            raise UsageError(
                f"{network.name} has no convolutions to compare images by; give another feature network"
            )
        for layer in layers:
            layer.register_forward_hook(self._see)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distances [B] of images x and y [B, C, H, W]."""
        distances = [
            (first - second).square().sum(1).mean((1, 2))
            for first, second in zip(self._activations(x), self._activations(y), strict=True)
        ]
        return sum(distances[1:], distances[0]) / len(distances)

    def _see(self, layer: nn.Module, given: Any, answer: Tensor) -> None:
        self._seen.append(normalize(answer.float(), dim=1))

    def _activations(self, images: Tensor) -> list[Tensor]:
        self._seen.clear()
        self.network(images)
        seen = list(self._seen)
        self._seen.clear()
        return seen
