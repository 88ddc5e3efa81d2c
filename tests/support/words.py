"""An encoder of texts that needs no weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.interfaces.encoder import Encoder


class Words(Encoder):
    """Every word is one token: standard normals seeded by its letters."""

    def __init__(self, width: int = 12) -> None:
        self.width = width

    @property
    def identity(self) -> str:
        return f"words {self.width}"

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        parts = [torch.stack([self._token(word) for word in text.split() or [""]]) for text in texts]
        embeddings = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        lengths = torch.tensor([len(part) for part in parts])
        return embeddings, torch.arange(embeddings.shape[1]) < lengths[:, None]

    def _token(self, word: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        return torch.randn(self.width, generator=generator)
