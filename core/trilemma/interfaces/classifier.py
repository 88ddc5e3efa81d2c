"""A network that says which class a state or an image has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trilemma.interfaces.process import Process


class Classifier(nn.Module):
    """A classifier p(y | z_t, t) of noised data, or p(y | x) of data.

    Attributes:
        shape: shape (C, H, W) of what it takes.
        classes: the names of its classes, in the order of its logits.
        process: the noising process whose states it takes; None for a classifier of data, which takes t = 0 alone.
        card: the parsed model.toml it was loaded from, None for a network that was not.
    """

    def __init__(self, shape: Sequence[int], classes: Sequence[str], process: Process | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.classes = tuple(classes)
        self.process = process
        self.card: Mapping[str, Any] | None = None

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Returns the logits [B, classes] of states z [B, C, H, W] at times t [B] in [0, 1]."""
