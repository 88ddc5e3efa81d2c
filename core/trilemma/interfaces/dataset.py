"""Data sets: images of one size, as bytes, and the values of conditions by name."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.column import ClassColumn, Column, Values
from trilemma.interfaces.condition import LABEL


class Dataset(ABC):
    """Images, and for each of them the values of conditions by name: a class, numbers, texts, other images.

    Args:
        labels: int64 [N], indices into `classes`.
        classes: names of the classes; () for images without classes, whose labels mean nothing.
        shape: (C, H, W) of one image.
        columns: the values of all other conditions, by name, one for each of the N examples.

    Raises:
        UsageError: for a column that is named as the labels are.

    Attributes:
        copies: how many views there are of each original, mirrored or cropped; with N of them, example i is a view
            of original i mod N, and the first N are the originals themselves.
    """

    copies: int = 1

    def __init__(
        self,
        labels: Tensor,
        classes: tuple[str, ...],
        shape: tuple[int, ...],
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        self.labels = labels
        self.classes = classes
        self.shape = shape
        self._columns = dict(columns or {})
        if LABEL in self._columns:
            raise UsageError(
                f"the column {LABEL!r} is that of the labels; give those as labels= and classes="
            )

    @property
    def columns(self) -> Mapping[str, Column]:
        """The values that there are, by the name of the condition; the labels are `class`, where there are classes."""
        labels = {LABEL: ClassColumn(self.labels, self.classes)} if self.classes else {}
        return {**labels, **self._columns}

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

    def batch(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Values]:
        """Returns the images x₀ = 2u/255 − 1 in [−1, 1] [B, C, H, W] at indices [B], and their values by name.

        Values are as their columns give them; see `values`.
        """
        # A half dtype is rounded to once, at the end.
        wide = torch.promote_types(dtype, torch.float32)
        return self.read(indices).to(wide).mul_(2 / 255).sub_(1).to(dtype), self.values(indices)

    def values(self, indices: Tensor) -> Values:
        """Returns the values at indices [B] by name, each read when it is asked for, without reading the images.

        They are labels int64 [B], numbers float32 [B], B texts, or images uint8 [B, C, H, W].
        """
        return Values(self.columns, indices)

    def fingerprint(self) -> str:
        """Returns a digest of the content; a training run resumes only on data with the same digest.

        This default covers labels, classes, shape and the other columns. A data set whose images can change while
        those stay the same overrides it and includes the images.
        """
        digest = hashlib.sha256(repr((self.classes, tuple(self.shape))).encode(errors="surrogateescape"))
        digest.update(self.labels.cpu().flatten().numpy().data)
        for name, column in sorted(self._columns.items()):
            digest.update(f"{name}\0{column.kind}\0{column.digest()}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)


class InMemoryDataset(Dataset):
    """Images that are all in memory.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N], indices into `classes`.
        classes: names of the classes.
        columns: the values of all other conditions, by name.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: tuple[str, ...],
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        super().__init__(labels, classes, tuple(images.shape[1:]), columns)
        self._images = images

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W]."""
        return self._images

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._images[indices]

    def fingerprint(self) -> str:
        """Returns a digest of labels, classes, shape, columns and all images."""
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
        others = {name: column.chosen(chosen) for name, column in whole.columns.items() if name != LABEL}
        super().__init__(whole.labels[chosen], whole.classes, whole.shape, others)
        self._whole, self._chosen = whole, chosen

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._whole.read(self._chosen[indices])
