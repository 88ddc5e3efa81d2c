"""Views of image files: whole, from a corner, mirrored; decoded when asked for, and kept where they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trilemma.errors import DataError
from trilemma.files.picture import decode_picture, picture_size
from trilemma_plugins.images.crops import corner
from trilemma_plugins.images.files import Files
from trilemma_plugins.images.unreadable import of_each


class Pictures:
    """V views of N image files; view ⌊i/N⌋ of image i mod N is the i-th.

    View 0 is the whole, resized until it just covers a square and centre-cropped to it; the others are squares in the
    corners. All of one set have one size.

    Args:
        files: that hold them.
        root: of the files, for messages.
        names: of the images.
        channels: 1 or 3.
        size: side of the square; None for images that all have one size.
        background: grey level behind transparent pixels.
        views: V.

    Attributes:
        shape: (C, H, W) of one view.

    Raises:
        DataError: for images that are not readable, or of unequal sizes.
    """

    def __init__(
        self,
        files: Files,
        root: Path,
        names: Sequence[str],
        channels: int,
        size: int | None,
        background: int,
        views: int,
    ) -> None:
        self._files, self._root, self.names = files, root, tuple(names)
        self._size, self._background = size, background
        height, width = (size, size) if size is not None else self._common_size()
        self.shape = (channels, height, width)
        self.count = len(self.names) * views
        self._kept = torch.zeros(self.count, dtype=torch.bool)
        self._cache: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Number of bytes that all views take."""
        channels, height, width = self.shape
        return self.count * channels * height * width

    def keep(self) -> None:
        """Keeps what is decoded from now on."""
        self._cache = torch.empty((self.count, *self.shape), dtype=torch.uint8)

    def read(self, views: Tensor, mirrored: Tensor) -> Tensor:
        """Returns views uint8 [B, C, H, W]; those are mirrored where `mirrored` [B] says so.

        Raises:
            Unreadable: for images that cannot be decoded.
        """
        pixels = self._unmirrored(views)
        if bool(mirrored.any()):
            pixels = torch.where(mirrored.bool().view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels

    def check(self) -> None:
        """Decodes the first view of every image that is not kept.

        Raises:
            Unreadable: for images that cannot be decoded, all of them.
        """
        missing = (~self._kept[: len(self.names)]).nonzero().flatten().tolist()
        of_each(self.names, self._root, missing, self._keep)

    def _unmirrored(self, views: Tensor) -> Tensor:
        if self._cache is None:
            decoded = of_each(self.names, self._root, views.tolist(), self._decode)
            return torch.stack(decoded) if decoded else torch.empty((0, *self.shape), dtype=torch.uint8)
        missing = views[~self._kept[views]].unique().tolist()
        for view, pixels in zip(missing, of_each(self.names, self._root, missing, self._decode), strict=True):
            self._cache[view] = pixels
            self._kept[view] = True
        return self._cache[views]

    def _keep(self, view: int) -> None:
        pixels = self._decode(view)
        if self._cache is not None:
            self._cache[view] = pixels
            self._kept[view] = True

    def _decode(self, view: int) -> Tensor:
        crop, index = divmod(view, len(self.names))
        blob = self._files.read(self.names[index])
        pixels = decode_picture(blob, self.shape[0], None if crop else self._size, self._background)
        if crop and self._size is not None:
            pixels = corner(pixels, crop - 1, self._size)
        if pixels.shape != self.shape:
            raise ValueError(
                f"its size is {tuple(pixels.shape[1:])} now, {self.shape[1:]} when the set was opened"
            )
        return pixels

    def _common_size(self) -> tuple[int, int]:
        sizes = of_each(
            self.names,
            self._root,
            range(len(self.names)),
            lambda index: picture_size(self._files.read(self.names[index])),
        )
        (common, _), *others = Counter(sizes).most_common()
        if others:
            name, size = next(pair for pair in zip(self.names, sizes, strict=True) if pair[1] != common)
            raise DataError(
                f"{name} in {self._root} is {size[0]}×{size[1]}, most are {common[0]}×{common[1]}; "
                f"give size={min(common)} to resize and crop all"
            )
        return common
