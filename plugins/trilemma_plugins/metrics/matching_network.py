"""The network that says how well a text describes an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trilemma.checks import checked_integer
from trilemma.interfaces.condition import TextCondition
from trilemma.interfaces.features import Features
from trilemma_plugins.metrics.image_network import FEATURES, ImageNetwork

# Initial e^τ, and the largest, as published.
FIRST, LARGEST = 1 / 0.07, 100.0


class MatchingNetwork(Features):
    r"""Vectors of unit length of images x and of texts y, whose products say how well they fit:

        f = W φ(x) / |W φ(x)|,   g = ψ(e(y)) / |ψ(e(y))|,   logits = e^τ f gᵀ

    φ is `image-network` up to its features, e the vector that an encoder makes of a text, ψ a perceptron of two layers
    after a LayerNorm, and τ ≤ log 100 a parameter.

    Args:
        shape: of the images that it is trained on; it takes those of any size.
        classes: not used.
        encoder: spec of the encoder of texts.
        width: numbers of f and g.
        hidden: numbers of the hidden layer of ψ.
        normalised, patch: of `image-network`.

    Raises:
        UsageError: for a number below 1.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: Sequence[str] = (),
        encoder: str = "minilm",
        width: int = 128,
        hidden: int = 512,
        normalised: bool = True,
        patch: int = 1,
    ) -> None:
        width = checked_integer(width, "matching-network: width", 1, what="is no width")
        hidden = checked_integer(hidden, "matching-network: hidden", 1, what="is no width")
        self_told = TextCondition("text", encoder, form="vector", null=False)
        super().__init__(shape, (), (self_told,))
        self.seeing = ImageNetwork(shape, (), normalised, patch)
        self.of_images = nn.Linear(FEATURES, width, bias=False)
        self.of_texts = nn.Sequential(
            nn.LayerNorm(self_told.width),
            nn.Linear(self_told.width, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST)))

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape (C, H, W) has one or three channels."""
        return self.seeing.takes(shape)

    def vectors(self, text: Tensor) -> Tensor:
        """Returns g [N, width] of encoded texts [N, D]."""
        return normalize(self.of_texts(text.to(self.of_images.weight.dtype)), dim=1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns f [B, width] of images, and the logits [B, N] of encoded texts [N, D] where they are told."""
        features = normalize(self.of_images(self.seeing.features(images)), dim=1)
        if text is None:
            return features, None
        scale = self.log_scale.clamp_max(math.log(LARGEST)).exp()
        return features, scale * features @ self.vectors(text).T

    def told(self, texts: Sequence[str]) -> Tensor:
        """Returns g [N, width] of texts, in float32."""
        prepared = self.conditions["text"].prepare(list(texts))
        with torch.inference_mode():
            rows = prepared.take(torch.arange(len(texts)))["text"]
            return self.vectors(rows.to(self.log_scale.device)).float().cpu()
