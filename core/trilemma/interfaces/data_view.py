"""The images that the data of a model stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder

# Images that an autoencoder is given in one call, which bounds its memory.
AT_ONCE = 16


class DataView(ABC):
    """A pair of maps between the data that a model draws and the images that they stand for."""

    @abstractmethod
    def image_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape (C, H, W) of the images of data of a shape."""

    @abstractmethod
    def images(self, data: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] of data [B, ...], in their dtype and on their device."""

    @abstractmethod
    def data(self, images: Tensor) -> Tensor:
        """Returns the data [B, ...] of images [B, C, H, W] in [−1, 1], in their dtype and on their device."""

    @abstractmethod
    def mask(self, mask: Tensor, shape: Sequence[int]) -> Tensor:
        """Returns 1 where a number of data of a shape stands for kept pixels alone, else 0: [B, ...] of a mask.

        Args:
            mask: [B, C, H, W] of the images, 1 for kept pixels.
            shape: of the data.
        """

    @property
    def is_direct(self) -> bool:
        """True where the data are the images themselves."""
        return False

    def record(self) -> Mapping[str, Any]:
        """Returns what the record of a model says of it."""
        return {}

    def follow(self, device: torch.device) -> None:
        """Moves the networks that it asks to a device."""
        return


@dataclass(frozen=True)
class Direct(DataView):
    """Data that are images."""

    def image_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape)

    def images(self, data: Tensor) -> Tensor:
        return data

    def data(self, images: Tensor) -> Tensor:
        return images

    def mask(self, mask: Tensor, shape: Sequence[int]) -> Tensor:
        return mask

    @property
    def is_direct(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Latent(DataView):
    """Data that are the normalised codes of an autoencoder; an image's code is the mean of its posterior.

    The autoencoder runs in its own dtype and on its own device. It gets 16 images in one call.

    Attributes:
        autoencoder: it is no part of the weights of the model.
        shape: shape (C, H, W) of the images.
    """

    autoencoder: Autoencoder
    shape: tuple[int, ...]

    def image_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.shape

    def follow(self, device: torch.device) -> None:
        self.autoencoder.to(device)

    def images(self, data: Tensor) -> Tensor:
        return self._through(self.autoencoder.image, data)

    def data(self, images: Tensor) -> Tensor:
        return self._through(self.autoencoder.normalised_code, images)

    def mask(self, mask: Tensor, shape: Sequence[int]) -> Tensor:
        """Returns 1 at the places of a code whose patches of pixels are kept whole."""
        channels, *sides = shape
        lost = adaptive_max_pool2d(1 - mask.amin(1, keepdim=True).float(), tuple(sides))
        return (1 - lost).to(mask.dtype).expand(-1, channels, -1, -1)

    def record(self) -> Mapping[str, Any]:
        card = self.autoencoder.card or {}
        name = card.get("model", {}).get("name", type(self.autoencoder).__name__)
        return {"autoencoder": {"name": name, "sha256": card.get("weights", {}).get("sha256")}}

    def _through(self, function: Any, values: Tensor) -> Tensor:
        own = self.autoencoder.code_mean
        with torch.no_grad():
            pieces = [function(piece.to(own.device, own.dtype)).to(values) for piece in values.split(AT_ONCE)]
        return torch.cat(pieces)


def autoencoder_of(model: nn.Module) -> Autoencoder:
    """Returns the autoencoder whose codes a latent model draws.

    Raises:
        UsageError: for another model.
    """
    view = getattr(model, "view", None)
    if not isinstance(view, Latent):
        raise UsageError(
            "this objective trains a latent model; add a table [latent] that names its autoencoder"
        )
    return view.autoencoder
