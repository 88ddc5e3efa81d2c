"""Image files in a folder or zip, one folder a class."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from trilemma.data_folder import find_data
from trilemma.dataset import Dataset
from trilemma.errors import DataError, UsageError
from trilemma.integers import checked_integer
from trilemma.reading.paths import user_path
from trilemma.reading.picture import PIXELS_LIMIT, WHITE, decode_picture, picture_size
from trilemma_plugins.images.files import images_by_class, open_files
from trilemma_plugins.images.fingerprint import files_fingerprint

_PLACE = "{split}"
_NAMED = 3  # of the unreadable images

R = TypeVar("R")


class Images(Dataset):
    """Image files (PNG, JPEG, …) in a folder or a zip, one folder a class; a zip is read where it is.

    Classes are the names of the folders, sorted; of a root with `{split}`, those of the training split, so that a
    label means the same in every split. Images are decoded when they are asked for, and kept where all of them fit in
    `cache_mb`. How a picture becomes pixels is said at `trilemma.reading.picture.decode_picture`.

    Args:
        root: folder or zip, looked for in the working directory and in $TRILEMMA_DATA (else `data`);
            `{split}` in it stands for the split, as in 'cifar10-{split}.zip'.
        split: what `{split}` stands for; "train" by default.
        size: side S of the square that images are resized (shorter side, Lanczos) and centre-cropped to; without
            it all must have one size.
        mode: "RGB" or "L" (grey).
        cache_mb: bound on the decoded images to keep in memory, in megabytes; 0 keeps none.
        background: grey level, 0 to 255, behind what is transparent.
        classes: names of the classes in the order of their labels, where the folders' sorted names are not meant.
        checked: whether `check`, before a training begins, decodes every image once.

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
        background: int = WHITE,
        classes: Sequence[str] | None = None,
        checked: bool = True,
    ) -> None:
        if size is not None and not (size >= 1 and size * size <= PIXELS_LIMIT):
            raise UsageError(
                f"images: size={size} is no side of an image; give an integer of at least 1, at most 8192"
            )
        if not 0 <= background <= 255:
            raise UsageError(
                f"images: background={background} is no grey level; give an integer from 0 to 255"
            )
        checked_integer(cache_mb, "images: cache_mb", 0, 2**40 - 1)
        if split is not None and _PLACE not in root:
            raise UsageError(
                f"images: root={root!r} has no split={split}; write {_PLACE} where the split's name goes"
            )
        self.root = _located(root.replace(_PLACE, split or "train"))
        self._mode, self._size, self._background, self._checked = mode, size, background, checked
        self._files = open_files(self.root)
        found = images_by_class(self._files, self.root)
        self.names = tuple(name for name, _ in found)
        label = {name: index for index, name in enumerate(_class_names(root, split, classes, found))}
        for name, folder in found:
            if folder not in label:
                known = "the training split's" if classes is None else "classes="
                raise (DataError if classes is None else UsageError)(
                    f"{name} in {self.root} is of a class that is none of {known}; remove its folder, or declare it"
                )
        height, width = (size, size) if size is not None else self._common_size()
        super().__init__(
            labels=torch.tensor([label[folder] for _, folder in found], dtype=torch.int64),
            classes=tuple(label),
            shape=(len(mode), height, width),
        )
        self._kept = torch.zeros(len(found), dtype=torch.bool)
        fits = len(found) * len(mode) * height * width <= cache_mb * 1_000_000
        self._cache = torch.empty((len(found), *self.shape), dtype=torch.uint8) if fits else None

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B].

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
        """
        if self._cache is None:
            decoded = self._of_each(indices.tolist(), self._decode)
            return torch.stack(decoded) if decoded else torch.empty((0, *self.shape), dtype=torch.uint8)
        missing = indices[~self._kept[indices]].unique().tolist()
        for index, pixels in zip(missing, self._of_each(missing, self._decode), strict=True):
            self._cache[index] = pixels
            self._kept[index] = True
        return self._cache[indices]

    def check(self) -> None:
        """Decodes every image that is not in memory, and keeps it where all fit.

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
        """
        if self._checked:
            self._of_each((~self._kept).nonzero().flatten().tolist(), self._keep)

    def _keep(self, index: int) -> None:
        pixels = self._decode(index)
        if self._cache is not None:
            self._cache[index] = pixels
            self._kept[index] = True

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

    def _decode(self, index: int) -> Tensor:
        blob = self._files.read(self.names[index])
        pixels = decode_picture(blob, len(self._mode), self._size, self._background)
        if pixels.shape != self.shape:
            raise ValueError(
                f"its size is {tuple(pixels.shape[1:])} now, {self.shape[1:]} when the set was opened"
            )
        return pixels

    def _common_size(self) -> tuple[int, int]:
        sizes = self._of_each(
            range(len(self.names)), lambda index: picture_size(self._files.read(self.names[index]))
        )
        (common, _), *others = Counter(sizes).most_common()
        if others:
            name, size = next(pair for pair in zip(self.names, sizes, strict=True) if pair[1] != common)
            raise DataError(
                f"{name} in {self.root} is {size[0]}×{size[1]}, most are {common[0]}×{common[1]}; "
                f"give size={min(common)} to resize and crop all"
            )
        return common

    def _of_each(self, indices: Sequence[int], read: Callable[[int], R]) -> list[R]:
        """What `read` says of each of the images.

        Raises:
            DataError: where it failed, with how many there are, the first names, and why.
        """
        answers: list[R] = []
        failures: list[str] = []
        for index in indices:
            try:
                answers.append(read(index))
            except Exception as error:  # a damaged file can make Pillow and zipfile raise nearly anything
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                failures.append(f"{self.names[index]} ({' '.join(reason.split())[:60]})")
        if failures:
            count = "" if len(failures) == 1 else f"{len(failures):,} of {len(self.names):,} images: "
            more = ", …" if len(failures) > _NAMED else ""
            raise DataError(
                f"cannot read {count}{', '.join(failures[:_NAMED])}{more} in {self.root}; restore or remove "
                + ("it" if len(failures) == 1 else "them")
            )
        return answers


def _class_names(
    root: str, split: str | None, given: Sequence[str] | None, found: Sequence[tuple[str, str]]
) -> list[str]:
    """The names of the classes in the order of their labels, one order for all splits."""
    if given is not None:
        if not given or len(set(given)) < len(given):
            raise UsageError(f"images: classes={list(given)} must be different names; give each once")
        return list(given)
    if split in (None, "train"):
        return sorted({folder for _, folder in found})
    try:
        place = _located(root.replace(_PLACE, "train"))
        return sorted({folder for _, folder in images_by_class(open_files(place), place)})
    except DataError as error:
        raise DataError(
            f"the classes of split={split} are those of the training split, which cannot be read ({error}); "
            "give classes=[…], in the order of their labels"
        ) from error


def _located(root: str) -> Path:
    path = user_path(root)
    if path.exists() or path.is_absolute():
        return path
    try:
        return find_data(root)
    except DataError as error:
        raise DataError(f"no {root} in {Path.cwd()}, and {error}") from error
