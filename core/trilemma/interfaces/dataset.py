"""Data sets: labelled images of one size, as bytes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Dataset(ABC):
    """Images with labels.

    Args:
        labels: int64 [N], indices into `classes`.
        classes: names of the classes; () for images without classes, whose labels mean nothing.
        shape: (C, H, W) of one image.

    Attributes:
        copies: how many views there are of each original, mirrored or cropped; with N of them, example i is a view
            of original i mod N, and the first N are the originals themselves.
    """

    copies: int = 1

    def __init__(self, labels: Tensor, classes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.labels = labels
        self.classes = classes
        self.shape = shape

    @abstractmethod
    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""

    def check(self) -> None:
        """Checks that all images can be read; called before the first step of a training.

        Raises:
            DataError: naming all that cannot be read at once.
        """
        return

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W]."""
        return self.read(torch.arange(len(self)))

    def batch(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Returns images x = 2u/255 − 1 in [−1, 1] [B, C, H, W] and labels [B] at indices [B]."""
        # A half dtype is rounded to once, at the end.
        wide = torch.promote_types(dtype, torch.float32)
        return self.read(indices).to(wide).mul_(2 / 255).sub_(1).to(dtype), self.labels[indices]

    def fingerprint(self) -> str:
        """Returns a digest of the content; a training run resumes only on data with the same digest.

        This default covers labels, classes and shape. A data set whose images can change while those stay the same
        overrides it and includes the images.
        """
        digest = hashlib.sha256(repr((self.classes, tuple(self.shape))).encode(errors="surrogateescape"))
        digest.update(self.labels.cpu().flatten().numpy().data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)


class InMemoryDataset(Dataset):
    """Images that are all in memory.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N], indices into `classes`.
        classes: names of the classes.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        super().__init__(labels, classes, tuple(images.shape[1:]))
        self._images = images

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W]."""
        return self._images

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._images[indices]

    def fingerprint(self) -> str:
        """Returns a digest of labels, classes, shape and all images."""
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(self._images.cpu().flatten().numpy().data)
        return digest.hexdigest()


class Subset(Dataset):
    """Some of the examples of a data set.

    Args:
        whole: the data set.
        chosen: int64 [M], indices into it.
    """

    def __init__(self, whole: Dataset, chosen: Tensor) -> None:
        super().__init__(whole.labels[chosen], whole.classes, whole.shape)
        self._whole, self._chosen = whole, chosen

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._whole.read(self._chosen[indices])
