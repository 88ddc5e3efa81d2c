"""Image files in a folder or zip, one folder a class."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trilemma.data_folder import find_data
from trilemma.dataset import Dataset
from trilemma.errors import DataError, UsageError
from trilemma_plugins.images.decode import decode, upright_size
from trilemma_plugins.images.files import images_by_class, open_files
from trilemma_plugins.images.fingerprint import files_fingerprint

_PLACE = "{split}"


class Images(Dataset):
    """Image files (PNG, JPEG, …) in a folder or a zip, one folder a class; a zip is read where it is.

    Classes are the names of the folders, sorted. Images are decoded when they are asked for, and kept where
    all of them fit in `cache_mb`.

    Args:
        root: folder or zip, looked for in the working directory and in $TRILEMMA_DATA (else ../shared/data);
            `{split}` in it stands for the split, as in 'cifar10-{split}.zip'.
        split: what `{split}` stands for; "train" by default.
        size: side S of the square that images are resized (shorter side, Lanczos) and centre-cropped to; without
            it all must have one size.
        mode: "RGB" or "L" (grey).
        cache_mb: bound on the decoded images to keep in memory, in megabytes; 0 keeps none.

    Raises:
        UsageError: for an impossible option.
        DataError: for files that are missing, unreadable, of unequal sizes, or not one folder a class.
    """

    def __init__(
        self,
        root: str,
        split: str | None = None,
        size: int | None = None,
        mode: Literal["RGB", "L"] = "RGB",
        cache_mb: int = 1024,
    ) -> None:
        if size is not None and size < 1:
            raise UsageError(f"images: size={size} is no side of an image; give an integer of at least 1")
        if split is not None and _PLACE not in root:
            raise UsageError(
                f"images: root={root!r} has no split={split}; write {_PLACE} where the split's name goes"
            )
        self.root = _located(root.replace(_PLACE, split or "train"))
        self._mode = mode
        self._size = size
        self._files = open_files(self.root)
        found = images_by_class(self._files, self.root)
        self.names = tuple(name for name, _ in found)
        classes = tuple(sorted({folder for _, folder in found}))
        height, width = (size, size) if size is not None else self._common_size()
        super().__init__(
            labels=torch.tensor([classes.index(folder) for _, folder in found], dtype=torch.int64),
            classes=classes,
            shape=(len(mode), height, width),
        )
        self._cached = torch.zeros(len(found), dtype=torch.bool)
        fits = len(found) * len(mode) * height * width <= cache_mb * 1_000_000
        self._cache = torch.empty((len(found), *self.shape), dtype=torch.uint8) if fits else None

    def read(self, indices: Tensor) -> Tensor:
        """The images uint8 [B, C, H, W] at indices [B].

        Raises:
            DataError: for an image that cannot be decoded.
        """
        if self._cache is None:
            return (
                torch.stack([self._decode(int(index)) for index in indices]) if len(indices) else self._none()
            )
        for index in indices[~self._cached[indices]].tolist():
            self._cache[index] = self._decode(index)
            self._cached[index] = True
        return self._cache[indices]

    def fingerprint(self) -> str:
        """Returns a digest of labels, classes, shape and files; of a large folder, of the ends of its files.

        Raises:
            DataError: for files that cannot be read.
        """
        try:
            files = files_fingerprint(self.root, self.names)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {self.root}: {error}; restore its files") from error
        return hashlib.sha256((super().fingerprint() + files).encode()).hexdigest()

    def _none(self) -> Tensor:
        return torch.empty((0, *self.shape), dtype=torch.uint8)

    def _decode(self, index: int) -> Tensor:
        name = self.names[index]
        try:
            pixels = decode(self._files.read(name), self._mode, self._size)
        except Exception as error:  # a damaged file can make Pillow and zipfile raise nearly anything
            raise self._unreadable(name, error) from error
        if pixels.shape != self.shape:
            raise DataError(
                f"{name} in {self.root} changed its size to {tuple(pixels.shape[1:])}; restore it"
            )
        return pixels

    def _common_size(self) -> tuple[int, int]:
        sizes: dict[str, tuple[int, int]] = {}
        for name in self.names:
            try:
                sizes[name] = upright_size(self._files.read(name))
            except Exception as error:
                raise self._unreadable(name, error) from error
        counts = Counter(sizes.values())
        (common, _), *others = counts.most_common()
        if others:
            name = next(name for name, size in sizes.items() if size != common)
            raise DataError(
                f"{name} in {self.root} is {sizes[name][0]}×{sizes[name][1]}, most are {common[0]}×{common[1]}; "
                f"give size={min(common)} to resize and crop all"
            )
        return common

    def _unreadable(self, name: str, error: Exception) -> DataError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return DataError(f"cannot read {name} in {self.root}: {reason}; restore or remove it")


def _located(root: str) -> Path:
    path = Path(root).expanduser()
    if path.exists() or path.is_absolute():
        return path
    try:
        return find_data(root)
    except DataError as error:
        raise DataError(f"no {root} in {Path.cwd()}, and {error}") from error
