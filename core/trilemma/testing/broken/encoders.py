"""Encoders with one fault each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.testing.word_encoder import WordEncoder


class RightEncoder(WordEncoder):
    """An encoder without a fault."""


class NarrowEmbeddings(WordEncoder):
    """Gives fewer numbers than its width says."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        return embeddings[..., :-1], mask


class MarksPadding(WordEncoder):
    """Marks every place as a token."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        return embeddings, torch.ones_like(mask)


class LeavesNoToken(WordEncoder):
    """Has no token for the empty text."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        full = torch.tensor([bool(text) for text in texts], dtype=torch.bool)[:, None]
        return embeddings * full[..., None], mask & full


class CentresTheBatch(WordEncoder):
    """Takes away the mean of the batch."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        mean = embeddings[mask].mean(0) if len(texts) else 0
        return (embeddings - mean) * mask[..., None], mask


class AttendsToItsPadding(WordEncoder):
    """Lets the length of the longest text into each."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        return embeddings * (1 + 1e-4 * mask.shape[1]), mask


class DropsWords(WordEncoder):
    """Has dropout left on."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        noise = torch.rand(
            embeddings.shape, generator=torch.Generator().manual_seed(uuid.uuid4().int % 2**60)
        )
        return embeddings * (noise > 0.1), mask


class DrawsGlobally(WordEncoder):
    """Seeds torch's global generator for its weights."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return super().encode(texts)


class HearsLengths(WordEncoder):
    """Tells texts apart by their number of words alone."""

    def embedding(self, word: str) -> Tensor:
        return super().embedding("word")


class PoolsPadding(WordEncoder):
    """Takes the mean over the padding, too."""

    def pooled(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return embeddings.mean(1)


class AnotherIdentity(WordEncoder):
    """Calls itself something new each time."""

    @property
    def identity(self) -> str:
        return f"words {uuid.uuid4().hex}"


class NeedsAText(WordEncoder):
    """Looks at the first text, which need not be there."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return super().encode([texts[0], *texts[1:]])


class NaNInTheLong(WordEncoder):
    """Has no embeddings beyond the hundredth word."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, mask = super().encode(texts)
        embeddings[:, 100:] = torch.nan
        return embeddings, mask
