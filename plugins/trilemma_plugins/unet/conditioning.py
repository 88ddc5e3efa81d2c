"""The ways by which conditions enter the U-Net: added to the embedding, beside the input, or as a context.

Each part receives the tensors of one condition in the order of its keywords. Where there is a null it is a parameter
that takes the place of the value wherever none is given, so that what lies there is never read.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.interfaces.condition import (
    ClassCondition,
    Condition,
    ImageCondition,
    ScalarCondition,
    TextCondition,
)
from trilemma.numerics.resizing import resized
from trilemma_plugins.unet.blocks import perceptron, sinusoids


class ScalarEmbedding(nn.Module):
    """Sinusoids of (value − low)/(high − low) through a perceptron, as of time; the null takes their place."""

    def __init__(self, condition: ScalarCondition, features: int, width: int) -> None:
        super().__init__()
        self.low, self.high, self.features = condition.low, condition.high, features
        self.mlp = perceptron(features, width)
        self.null = _null(features // 2 * 2) if condition.null else None

    def forward(self, value: Tensor, given: Tensor | None = None) -> Tensor:
        """Returns the embedding [B, E] of values [B]."""
        seen = sinusoids((value - self.low) / (self.high - self.low), self.features)
        return cast(Tensor, self.mlp(_or_null(seen, given, self.null).to(self.mlp[0].weight.dtype)))


class VectorEmbedding(nn.Module):
    """A linear map of a vector after LayerNorm, which takes away the scale of an encoder."""

    def __init__(self, condition: TextCondition, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(condition.width)
        self.embedding = nn.Linear(condition.width, width)
        self.null = _null(condition.width) if condition.null else None

    def forward(self, vector: Tensor, given: Tensor | None = None) -> Tensor:
        """Returns the embedding [B, E] of vectors [B, D]."""
        filled = _or_null(vector, given, self.null).to(self.embedding.weight.dtype)
        return cast(Tensor, self.embedding(self.norm(filled)))


class SequenceContext(nn.Module):
    """A sequence as a context of always `length` tokens: those of the text, then those of the null sequence.

    The places of the null that a text does not reach stay, which is known to work better than no attention to them; a
    text without a token is the whole null sequence. Since the length is the same for every text, however far it was
    padded, padding changes no bit. Tokens beyond the length are not read.
    """

    def __init__(self, condition: TextCondition, width: int) -> None:
        super().__init__()
        self.null = _null(condition.length, condition.width)
        self.norm = nn.LayerNorm(condition.width)
        self.embedding = nn.Linear(condition.width, width)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Returns the context [B, length, E] of embeddings [B, L, D] and their mask [B, L]."""
        more = len(self.null) - sequence.shape[1]
        # A negative number cuts.
        sequence, mask = F.pad(sequence, (0, 0, 0, more)), F.pad(mask, (0, more))
        filled = torch.where(mask[..., None], sequence, self.null).to(self.null.dtype)
        return cast(Tensor, self.embedding(self.norm(filled)))

    def pooled(self, context: Tensor, mask: Tensor) -> Tensor:
        """Returns the mean [B, E] of the places of a context that a text fills; of the whole null for no token.

        Args:
            context: [B, length, E], as the call gives it.
            mask: [B, L], as the call takes it.
        """
        filled = F.pad(mask, (0, context.shape[1] - mask.shape[1]))
        weights = (filled | ~filled.any(1, keepdim=True)).to(context.dtype).unsqueeze(-1)
        return (context * weights).sum(1) / weights.sum(1)


class ImageChannels(nn.Module):
    """An image, resized by the condition's rule to the size of the data, as further channels of the input.

    Raises:
        UsageError: where the sizes differ and the rule allows no resizing.
    """

    def __init__(self, condition: ImageCondition, size: tuple[int, int]) -> None:
        super().__init__()
        if condition.resize == "exact" and condition.shape[1:] != size:
            raise UsageError(
                f"unet: condition {condition.name!r} is exactly {condition.shape[1]}×{condition.shape[2]} and the data "
                f"{size[0]}×{size[1]}; give a rule to resize it by"
            )
        self.rule, self.size = condition.resize, size
        self.null = nn.Parameter(torch.zeros(condition.shape)) if condition.null else None

    def forward(self, image: Tensor, given: Tensor | None = None) -> Tensor:
        """Returns the channels [B, C, H, W] of images [B, C, h, w]."""
        return resized(_or_null(image, given, self.null), self.size, self.rule)


def listener(condition: Condition, features: int, width: int, size: tuple[int, int]) -> nn.Module:
    """Returns the part that hears a condition.

    Args:
        condition: of any kind.
        features: number of sinusoidal features of a scalar.
        width: E, of embeddings and contexts.
        size: (H, W) of the data.

    Raises:
        UsageError: for a kind that the U-Net does not know.
    """
    match condition:
        case ClassCondition():
            return nn.Embedding(max(condition.size, 1 + (condition.null or 0)), width)
        case ScalarCondition():
            return ScalarEmbedding(condition, features, width)
        case ImageCondition():
            return ImageChannels(condition, size)
        case TextCondition(form="vector"):
            return VectorEmbedding(condition, width)
        case TextCondition():
            return SequenceContext(condition, width)
    raise UsageError(
        f"unet: condition {condition.name!r} is of an unknown kind {condition.kind!r}; give another"
    )


def _null(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def _or_null(value: Tensor, given: Tensor | None, null: Tensor | None) -> Tensor:
    if null is None or given is None:
        return value
    return torch.where(given.view(-1, *(1,) * null.dim()), value, null)
