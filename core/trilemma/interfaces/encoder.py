"""Encoders: networks that turn texts into embeddings, for denoisers that are told texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.registry import Catalog, building, catalog
from trilemma.registry.spec import parse_spec


class Encoder(ABC):
    """A frozen network that turns texts into embeddings.

    A text has the same embeddings alone and beside any others, to 1e-6, so that samples do not depend on their batch.

    Attributes:
        width: D, numbers in one embedding.
    """

    width: int

    @property
    @abstractmethod
    def identity(self) -> str:
        """A text that two encoders share only if they encode alike: a digest of the weights and all options."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns the embeddings of the tokens of texts, float32 [N, L, D], and their mask, bool [N, L].

        L is the number of tokens of the longest text. Places after the tokens of a shorter one are zeros, their mask
        False. Every text has at least one token.
        """

    def pooled(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Returns one vector [N, D] a text: the mean of the embeddings of its tokens.

        Args:
            embeddings: [N, L, D].
            mask: bool [N, L], at least one True a text.
        """
        weights = mask.unsqueeze(-1).to(embeddings.dtype)
        return (embeddings * weights).sum(1) / weights.sum(1)


def encoder_of(given: str | Encoder) -> Encoder:
    """Returns the encoder of a spec, which is made once a process; an encoder is returned as it is.

    Raises:
        PluginUnavailable: for an unknown name, or one whose module cannot be imported.
        UsageError: for a malformed spec, or anything that is no encoder.
    """
    made = _made(catalog(), given) if isinstance(given, str) else given
    if not isinstance(made, Encoder):
        raise UsageError(f"{given!r} is no encoder; give a spec string or an instance of Encoder")
    return made


def encoder_width(given: str | Encoder) -> int:
    """Returns the width of an encoder, from its registration where that says so: without its weights."""
    if isinstance(given, str):
        width = getattr(building.component("encoder", parse_spec(given).name), "width", 0)
        if width:
            return int(width)
    return encoder_of(given).width


@lru_cache(8)
def _made(known: Catalog, spec: str) -> Any:
    with torch.inference_mode(False), torch.no_grad():
        return building.build("encoder", spec)[0]
