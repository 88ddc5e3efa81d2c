"""What a data set is: labelled images of one size, in memory as bytes."""

from __future__ import annotations

import torch
from torch import Tensor


class Dataset:
    """Images with labels.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], indices into `classes`.
        classes: names of the classes.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        self.images = images
        self.labels = labels
        self.classes = classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Images x = 2u/255 − 1 in [−1, 1] [B, C, H, W] and labels [B] at indices [B]."""
        return self.images[indices].to(dtype).mul_(2 / 255).sub_(1), self.labels[indices]
