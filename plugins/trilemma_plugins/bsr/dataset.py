"""Pictures beside smaller ones made of them, to train what enlarges pictures."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import PluginUnavailable, UsageError
from trilemma.interfaces.column import ImageColumn
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.dataset import Dataset
from trilemma.numerics.resizing import RULES, covering, resized
from trilemma.registry import building
from trilemma_plugins.bsr.degradation import VARIANTS, Degradation

# Bytes of small pictures that are kept.
_KEPT = 1 << 30
_AREA = "area"


class Degraded(Dataset):
    """A data set whose column `low` has every image in a smaller size, resized or degraded.

    Labels and other columns are those of the data set. With `copies`, each of its N examples has several degraded
    pictures: example i is example i mod N, degraded by the key i. An example and its key alone decide the picture, in
    any order and in any process; a picture is made once and kept, where all of them fit in a gigabyte.

    Args:
        of: spec of the data set, quoted where it has options: of="images:root=photos,size=64".
        size: side to which images are resized by their area first; by default they keep their size.
        factor: by which the sides of `low` are smaller; 1 for no column `low`.
        by: bsr, bsr-light or bsr-plus, or a rule of resizing such as area or bicubic-antialias.
        copies: degraded pictures an example, for the random ones.
        seed: of the degradation.
        split: of the data set, where it has splits.

    Raises:
        UsageError: for an unknown way, or sides that the factor does not divide.
        DataError: as the data set does.
    """

    def __init__(
        self,
        of: str,
        size: int | None = None,
        factor: int = 4,
        by: str = "bsr",
        copies: int = 1,
        seed: int = 0,
        split: str | None = None,
    ) -> None:
        checked_integer(factor, "degraded: factor", 1, 16)
        checked_integer(copies, "degraded: copies", 1, 2**20)
        checked_integer(seed, "degraded: seed", 0, 2**32 - 1, what="is not a seed")
        if size is not None:
            checked_integer(size, "degraded: size", 1, 8192)
        if by not in (*VARIANTS, *RULES):
            raise UsageError(f"degraded: unknown by={by!r}; choose from {', '.join((*VARIANTS, *RULES))}")
        if copies > 1 and by in RULES:
            raise UsageError(f"degraded: copies={copies} of the same picture by {by}; leave copies out")
        try:
            self._of: Dataset = building.build("dataset", of, **({} if split is None else {"split": split}))[
                0
            ]
        except (UsageError, PluginUnavailable) as error:
            raise UsageError(f"degraded: {'of' if split is None else 'of or split'}: {error}") from error
        self._degradation = Degradation(by, factor, seed) if by in VARIANTS else None
        self._size, self._factor, self._by, self._seed = size, factor, by, seed
        channels, height, width = self._of.shape
        if size is not None:
            height = width = size
        self._side = Degradation("bsr", factor).size(height, width)
        count = len(self._of) * copies
        self._places = places = torch.arange(len(self._of)).repeat(copies)
        columns = {name: column.chosen(places) for name, column in self._of.columns.items() if name != LABEL}
        small = (channels, *self._side)
        if factor > 1:
            columns["low"] = ImageColumn(self._low, count, small, self._way)
        super().__init__(self._of.labels.repeat(copies), self._of.classes, (channels, height, width), columns)
        self.copies = self._of.copies * copies
        self._made = torch.zeros(count, dtype=torch.bool)
        fits = self._degradation is not None and count * channels * height * width // factor**2 <= _KEPT
        self._kept = torch.empty((count, *small), dtype=torch.uint8) if fits else None

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        images = self._of.read(self._places[indices])
        if self._size is None or tuple(images.shape[-2:]) == (self._size, self._size):
            return images
        return _bytes(covering(images.float(), (self._size, self._size), _AREA))

    def check(self) -> None:
        """Checks the data set, see `Dataset.check`."""
        self._of.check()

    def fingerprint(self) -> str:
        """Returns a digest of the data set and of how its images are made smaller."""
        inner = self._of.fingerprint()
        return hashlib.sha256(f"{super().fingerprint()} {inner} {self._size}".encode()).hexdigest()

    @property
    def _way(self) -> str:
        return f"{self._by} {self._factor} {self._seed}"

    def _low(self, indices: Tensor) -> Tensor:
        if self._degradation is None:
            return _bytes(resized(self.read(indices).float(), self._side, self._by))
        if self._kept is None:
            return self._degraded(indices)
        missing = indices[~self._made[indices]].unique()
        if len(missing):
            self._kept[missing] = self._degraded(missing)
            self._made[missing] = True
        return self._kept[indices]

    def _degraded(self, indices: Tensor) -> Tensor:
        assert self._degradation is not None
        made = [
            self._degradation(image, key)
            for image, key in zip(self.read(indices), indices.tolist(), strict=True)
        ]
        return torch.stack(made) if made else torch.empty((0, self.shape[0], *self._side), dtype=torch.uint8)


def _bytes(levels: Tensor) -> Tensor:
    return levels.round().clamp(0, 255).to(torch.uint8)
