"""An encoder for tests: a random embedding a word, made at once and the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.interfaces.encoder import Encoder


class WordEncoder(Encoder):
    """Gives every word the standard normal embedding that its own digest seeds; the empty text is one empty word.

    Args:
        width: D.

    Attributes:
        calls: the texts of each call of `encode`.
    """

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.calls: list[list[str]] = []

    @property
    def identity(self) -> str:
        return f"words {self.width}"

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.calls.append(list(texts))
        words = [text.split() or [""] for text in texts]
        longest = max(map(len, words), default=0)
        embeddings = torch.zeros(len(texts), longest, self.width)
        for row, own in zip(embeddings, words, strict=True):
            for place, word in enumerate(own):
                row[place] = self.embedding(word)
        return embeddings, torch.arange(longest) < torch.tensor([len(own) for own in words])[:, None]

    def embedding(self, word: str) -> Tensor:
        """Returns the embedding [D] of a word."""
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:7], "little")
        return torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
