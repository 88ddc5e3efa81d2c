"""Data sets with one fault each, and one without."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.column import TextColumn, Values
from trilemma.interfaces.dataset import Dataset

_CLASSES = ("dark", "light")


class RightData(Dataset):
    """Noise on 4×4 pixels, 24 images a split.

    Args:
        split: "train" or "test".
    """

    def __init__(self, split: str = "train") -> None:
        self.split = split
        generator = torch.Generator().manual_seed(len(split))
        self.pixels = torch.randint(0, 256, (24, 1, 4, 4), generator=generator, dtype=torch.uint8)
        super().__init__(torch.arange(24) % 2, _CLASSES, (1, 4, 4))

    def read(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]


class Floats(RightData):
    """Has pixels that are no bytes."""

    def read(self, indices: Tensor) -> Tensor:
        return self.pixels[indices] / 255


class LabelsFromOne(RightData):
    """Counts the classes from 1."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        self.labels = self.labels + 1


class UnevenViews(RightData):
    """Says that it has five views of each original."""

    copies = 5


class Sorting(RightData):
    """Reads in the order of the files."""

    def read(self, indices: Tensor) -> Tensor:
        return self.pixels[indices.sort().values]


class NeedsOne(RightData):
    """Stacks the images it has read, and fails where there are none."""

    def read(self, indices: Tensor) -> Tensor:
        return torch.stack([self.pixels[index] for index in indices.tolist()])


class GoesRound(RightData):
    """Begins again after the last image."""

    def read(self, indices: Tensor) -> Tensor:
        return self.pixels[indices % len(self.labels)]


class CropsByChance(RightData):
    """Moves an image by chance each time that it is read."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        self.chance = torch.Generator().manual_seed(0)

    def read(self, indices: Tensor) -> Tensor:
        return super().read(indices).roll(int(torch.randint(1, 4, (), generator=self.chance)), -1)


class LendsItsMemory(RightData):
    """Gives the memory that it keeps its images in."""

    def read(self, indices: Tensor) -> Tensor:
        first, last = (int(indices[0]), int(indices[-1])) if len(indices) else (0, -1)
        if torch.equal(indices, torch.arange(first, last + 1)):
            return self.pixels[first : last + 1]
        return super().read(indices)


class HalfTheRange(RightData):
    """Scales to [0, 1]."""

    def batch(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Values]:
        return self.read(indices).to(dtype) / 255, Values(self.columns, indices)


class ShortColumn(RightData):
    """Has a caption for half of its images only."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        self._columns["text"] = TextColumn(["noise"] * 12)


class CaptionsInOrder(RightData):
    """Gives its captions in the order of the files, whichever are asked for."""

    def batch(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Values]:
        x0, _ = super().batch(indices, dtype)
        return x0, Values(self.columns, torch.arange(len(indices)))


class ForgetsItsCaptions(RightData):
    """Has captions that its fingerprint does not know of."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        self._columns["text"] = TextColumn([f"image {index}" for index in range(24)])

    def fingerprint(self) -> str:
        return Dataset.fingerprint(RightData(self.split))


class Damaged(RightData):
    """Has an image that cannot be read."""

    def check(self) -> None:
        raise OSError("image 7 is damaged")


class SeedsTorch(RightData):
    """Seeds torch's global generator for its draws."""

    def __init__(self, split: str = "train") -> None:
        torch.manual_seed(0)
        super().__init__(split)


class AnotherEachTime(RightData):
    """Orders its images by chance."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        chance = torch.Generator()
        chance.seed()
        self.pixels = self.pixels[torch.randperm(24, generator=chance)]


class OneSplit(RightData):
    """Has the training images for testing."""

    def __init__(self, split: str = "train") -> None:
        super().__init__("train")


class SharedImages(RightData):
    """Has some of the training images for testing."""

    def __init__(self, split: str = "train") -> None:
        super().__init__(split)
        if split == "test":
            self.pixels[:5] = RightData().pixels[5:10]
