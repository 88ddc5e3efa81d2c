"""Image files in a folder or zip, in one folder a class or in none."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import DataError, UsageError
from trilemma.files.data_folder import find_data
from trilemma.files.paths import user_path
from trilemma.files.picture import PIXELS_LIMIT, WHITE, decode_picture, picture_size
from trilemma.interfaces.dataset import Dataset
from trilemma_plugins.images.crops import CORNERS, corner
from trilemma_plugins.images.files import images_by_class, open_files
from trilemma_plugins.images.fingerprint import files_fingerprint
from trilemma_plugins.images.unreadable import of_each

_PLACE = "{split}"


class Images(Dataset):
    """Image files (PNG, JPEG, …) in a folder or a zip, in one folder a class or in none; a zip is read where it is.

    Classes are the names of the folders, sorted; of a root with `{split}`, those of the training split, so that a
    label means the same in every split. Images in no folder have no classes, and the label 0. With `crops` and `flip`,
    N images are V·N examples: example i is view ⌊i/N⌋ of image i mod N, the unmirrored crops first. Images are decoded
    when they are asked for, and kept where all of them fit in `cache_mb`. How a picture becomes pixels is said at
    `trilemma.files.picture.decode_picture`.

    Args:
        root: folder or zip, looked for in the working directory and in $TRILEMMA_DATA (else `data`);
            `{split}` in it stands for the split, as in 'cifar10-{split}.zip'.
        split: what `{split}` stands for; "train" by default.
        size: side S of the square that images are resized (shorter side, Lanczos) and centre-cropped to; without
            it all must have one size.
        mode: "RGB" or "L" (grey).
        cache_mb: bound on the decoded images to keep in memory, in megabytes; 0 keeps none.
        background: grey level, 0 to 255, behind transparent pixels.
        flip: also give the mirror image of every example.
        crops: 1, the centre; or 5, the centre and, in each corner, a square of 7/8 of the shorter side.
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
        flip: bool = False,
        crops: Literal[1, 5] = 1,
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
        if crops not in (1, CORNERS + 1):
            raise UsageError(f"images: crops={crops} is no number of crops; give 1 or {CORNERS + 1}")
        if crops > 1 and size is None:
            raise UsageError(f"images: crops={crops} needs the size that they are resized to; give size=")
        checked_integer(cache_mb, "images: cache_mb", 0, 2**40 - 1)
        if split is not None and _PLACE not in root:
            raise UsageError(
                f"images: root={root!r} has no split={split}; write {_PLACE} where the split's name goes"
            )
        self.root = located(root.replace(_PLACE, split or "train"))
        self._mode, self._size, self._background, self._checked = mode, size, background, checked
        self._files = open_files(self.root)
        found = images_by_class(self._files, self.root)
        self.names = tuple(name for name, _ in found)
        label = {
            name: index for index, name in enumerate(_class_names(root, split, classes, found, self.root))
        }
        for name, folder in found:
            if folder is None and label:
                raise DataError(f"{name} in {self.root} lies in no folder of a class; put it in one")
            if folder is not None and folder not in label:
                known = "the training split's" if classes is None else "classes="
                raise (DataError if classes is None else UsageError)(
                    f"{name} in {self.root} is of a class that is none of {known}; remove its folder, or declare it"
                )
        height, width = (size, size) if size is not None else self._common_size()
        self._views = crops
        self.copies = crops * (2 if flip else 1)
        labels = torch.tensor(
            [0 if folder is None else label[folder] for _, folder in found], dtype=torch.int64
        )
        super().__init__(
            labels=labels.repeat(self.copies), classes=tuple(label), shape=(len(mode), height, width)
        )
        kept = len(found) * crops
        self._kept = torch.zeros(kept, dtype=torch.bool)
        fits = kept * len(mode) * height * width <= cache_mb * 1_000_000
        self._cache = torch.empty((kept, *self.shape), dtype=torch.uint8) if fits else None

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B].

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
            IndexError: for an index below 0 or past the end.
        """
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(
                f"images: indices from {int(indices.min())} to {int(indices.max())} are not all in 0 to {len(self) - 1}"
            )
        mirrored, views = indices // len(self._kept), indices % len(self._kept)
        pixels = self._unmirrored(views)
        if bool(mirrored.any()):
            pixels = torch.where(mirrored.bool().view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels

    def _unmirrored(self, views: Tensor) -> Tensor:
        if self._cache is None:
            decoded = of_each(self.names, self.root, views.tolist(), self._decode)
            return torch.stack(decoded) if decoded else torch.empty((0, *self.shape), dtype=torch.uint8)
        missing = views[~self._kept[views]].unique().tolist()
        for view, pixels in zip(missing, of_each(self.names, self.root, missing, self._decode), strict=True):
            self._cache[view] = pixels
            self._kept[view] = True
        return self._cache[views]

    def check(self) -> None:
        """Decodes every image that is not in memory, and keeps it where all fit.

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
        """
        if self._checked:
            of_each(
                self.names,
                self.root,
                (~self._kept[: len(self.names)]).nonzero().flatten().tolist(),
                self._keep,
            )

    def _keep(self, view: int) -> None:
        pixels = self._decode(view)
        if self._cache is not None:
            self._cache[view] = pixels
            self._kept[view] = True

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

    def _decode(self, view: int) -> Tensor:
        crop, index = divmod(view, len(self.names))
        blob = self._files.read(self.names[index])
        pixels = decode_picture(blob, len(self._mode), None if crop else self._size, self._background)
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
            self.root,
            range(len(self.names)),
            lambda index: picture_size(self._files.read(self.names[index])),
        )
        (common, _), *others = Counter(sizes).most_common()
        if others:
            name, size = next(pair for pair in zip(self.names, sizes, strict=True) if pair[1] != common)
            raise DataError(
                f"{name} in {self.root} is {size[0]}×{size[1]}, most are {common[0]}×{common[1]}; "
                f"give size={min(common)} to resize and crop all"
            )
        return common


def _class_names(
    root: str,
    split: str | None,
    given: Sequence[str] | None,
    found: Sequence[tuple[str, str | None]],
    place: Path,
) -> list[str]:
    """The names of the classes in the order of their labels, one order for all splits."""
    if given is not None:
        if not given or len(set(given)) < len(given):
            raise UsageError(f"images: classes={list(given)} must be different names; give each once")
        if found[0][1] is None:
            raise UsageError(
                f"images: classes= is given and {place} has no folders of classes; make them, or leave it out"
            )
        return list(given)
    if split in (None, "train"):
        return _sorted_names(found)
    try:
        train = located(root.replace(_PLACE, "train"))
        return _sorted_names(images_by_class(open_files(train), train))
    except DataError as error:
        raise DataError(
            f"the classes of split={split} are those of the training split, which cannot be read ({error}); "
            "give classes=[…], in the order of their labels"
        ) from error


def _sorted_names(found: Sequence[tuple[str, str | None]]) -> list[str]:
    return sorted({folder for _, folder in found if folder is not None})


def located(root: str) -> Path:
    """Returns the folder or zip that a root means: in the working directory, else in the data folder.

    Raises:
        DataError: where there is none.
    """
    path = user_path(root)
    if path.exists() or path.is_absolute():
        return path
    try:
        return find_data(root)
    except DataError as error:
        raise DataError(f"no {root} in {Path.cwd()}, and {error}") from error
