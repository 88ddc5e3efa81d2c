"""A fixed network whose activations are the space in which images are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import TrilemmaError
from trilemma.interfaces.condition import Condition
from trilemma.interfaces.metric import Observation

# Images whose activations stay in the cache.
CHUNK = 100


class Features(nn.Module):
    """A network that answers images with features; it is a `trilemma.interfaces.metric.FeatureNetwork`.

    Attributes:
        shape: shape (C, H, W) of the images that it was trained on.
        classes: the names of the classes of its logits; () for a network without logits.
        conditions: values of a data set that it is told beside the images in training, by name; most networks have
            none. `forward` then also takes their tensors, by their keywords, and logits are of what it was told.
        card: the parsed model.toml it was loaded from, None for a network that was not.
    """

    def __init__(
        self, shape: Sequence[int], classes: Sequence[str] = (), conditions: Sequence[Condition] = ()
    ) -> None:
        super().__init__()
        self.conditions = {condition.name: condition for condition in conditions}
        self.shape = tuple(shape)
        self.classes = tuple(classes)
        self.card: Mapping[str, Any] | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the features [B, D] and the class logits [B, classes] of images [B, C, H, W] in [−1, 1].

        A network without classes answers with None for the logits.
        """

    @property
    def name(self) -> str:
        """Name that its card states; that of its class where it has none."""
        return str((self.card or {}).get("model", {}).get("name", type(self).__name__))

    @property
    def identity(self) -> str:
        """Name and sha256 of its weights, which every number that was measured with it carries."""
        digest = (self.card or {}).get("weights", {}).get("sha256")
        return self.name if digest is None else f"{self.name} sha256:{digest[:16]}"

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether it takes images of a shape (C, H, W); by default that of its training images alone."""
        return tuple(shape) == self.shape

    @torch.inference_mode()
    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Returns features [B, D] and logits [B, classes] of images [B, C, H, W] in [−1, 1], in float32 on the CPU.

        Raises:
            TrilemmaError: for images of a shape that it does not take.
        """
        shape = tuple(images.shape[1:])
        if not self.takes(shape):
            raise TrilemmaError(
                f"{self.name} takes no images of shape {shape}; evaluate with a feature network that does (--features)"
            )
        pixels = images.to("cpu", torch.float32).contiguous(memory_format=torch.channels_last)
        answers = [self(chunk) for chunk in pixels.split(CHUNK)]
        features = torch.cat([entry for entry, _ in answers])
        logits = [entry for _, entry in answers if entry is not None]
        return Observation(features, torch.cat(logits) if logits else None, labels)
