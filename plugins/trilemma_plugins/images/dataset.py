"""Image files in a folder or zip, with what metadata or folders say of them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import DataError, UsageError
from trilemma.files.data_folder import find_data
from trilemma.files.paths import user_path
from trilemma.files.picture import PIXELS_LIMIT, WHITE
from trilemma.interfaces.column import Column, ImageColumn
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.dataset import Dataset
from trilemma_plugins.images.contents import SPLIT, Contents, contents_of, joint_name
from trilemma_plugins.images.crops import CORNERS
from trilemma_plugins.images.files import open_files
from trilemma_plugins.images.fingerprint import files_fingerprint
from trilemma_plugins.images.pictures import Pictures
from trilemma_plugins.images.schema import Rule, captions_of, check_columns, columns_of, labels_of, schema_of

_PLACE = "{split}"


class Images(Dataset):
    """Image files (PNG, JPEG, …) in a folder or a zip, with metadata, in one folder a class, or with neither.

    A file `metadata.jsonl` or `metadata.csv` has a row for each image: `file_name` and any columns, which become
    conditions by the rule at `trilemma_plugins.images.schema.schema_of`; a column `split` divides the images. Without
    such a file classes are the names of the folders, sorted; of a root with `{split}`, those of the training split, so
    that a label means the same in every split. Images in no folder have no classes, and the label 0.

    With `crops`, `flip` and several captions an image, N images are V·N examples: example i is view ⌊i/N⌋ of image i
    mod N, the unmirrored crops first, all of them once for each caption. Images of a column are cropped and mirrored
    with the image that they belong to; classes, numbers and texts stay as they are. Images are decoded when they are
    asked for, and kept where all of them fit in `cache_mb`. How a picture becomes pixels is said at
    `trilemma.files.picture.decode_picture`.

    Args:
        root: folder or zip, looked for in the working directory and in $TRILEMMA_DATA (else `data`);
            `{split}` in it stands for the split, as in 'cifar10-{split}.zip'.
        split: what `{split}` stands for, or else the images whose column `split` says so; "train" by default. "test"
            stands for every split of the column that begins with `test-`, too.
        size: side S of the square that images are resized (shorter side, Lanczos) and centre-cropped to; without
            it all must have one size.
        mode: "RGB" or "L" (grey).
        cache_mb: bound on the decoded images to keep in memory, in megabytes; 0 keeps none.
        background: grey level, 0 to 255, behind transparent pixels.
        flip: also give the mirror image of every example.
        crops: 1, the centre; or 5, the centre and, in each corner, a square of 7/8 of the shorter side.
        classes: names of the classes in the order of their labels, where their sorted names are not meant.
        label: column of the metadata that is the class; of several, each combination of values is one.
        text: column of the metadata that is the caption, or a list of captions; by default `text`.
        checked: whether `check`, before a training begins, decodes every image once.

    Raises:
        UsageError: for an impossible option.
        DataError: for files that are missing, unreadable, of unequal sizes, or not one folder a class, and for metadata
            that do not fit them.
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
        label: str | Sequence[str] | None = None,
        text: str | None = None,
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
        self.root, self._checked = located(root.replace(_PLACE, split or "train")), checked
        files = open_files(self.root)
        joint = () if label is None or isinstance(label, str) else tuple(label)
        label = joint_name(joint) if joint else cast(str | None, label)
        whole = contents_of(files, self.root).joined(joint)
        if split is not None and _PLACE not in root and SPLIT not in whole.columns:
            raise UsageError(
                f"images: root={root!r} has no split={split}; write {_PLACE} where the split's name goes, or give its "
                f"metadata a column {SPLIT}"
            )
        found = whole if _PLACE in root else whole.part(split, root)
        rules = _rules(root, split, whole, classes, label, joint, text)
        check_columns(found, rules, str(self.root), declared=classes is not None)
        labels = labels_of(rules[LABEL], found) if LABEL in rules else torch.zeros(len(found.names))
        self.names, self._flips = found.names, 2 if flip else 1
        pictures = partial(
            Pictures, files, self.root, channels=len(mode), size=size, background=background, views=crops
        )
        self._pictures = pictures(self.names)
        self._others = {
            name: pictures(found.columns[rule.column]) for name, rule in rules.items() if rule.kind == "image"
        }
        views = crops * self._flips
        self.copies = views * captions_of(rules)
        columns = columns_of(rules, found, views)
        columns |= {name: self._column(of) for name, of in self._others.items()}
        super().__init__(
            labels=labels.long().repeat(self.copies),
            classes=rules[LABEL].classes if LABEL in rules else (),
            shape=self._pictures.shape,
            columns=columns,
        )
        if sum(entry.bytes for entry in self._all) <= cache_mb * 1_000_000:
            for entry in self._all:
                entry.keep()

    @property
    def _all(self) -> list[Pictures]:
        return [self._pictures, *self._others.values()]

    def _column(self, pictures: Pictures) -> Column:
        content = "\0".join(pictures.names)
        return ImageColumn(
            partial(self._views, pictures), len(self.names) * self.copies, pictures.shape, content
        )

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B].

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
            IndexError: for an index below 0 or past the end.
        """
        return self._views(self._pictures, indices)

    def _views(self, pictures: Pictures, indices: Tensor) -> Tensor:
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(
                f"images: indices from {int(indices.min())} to {int(indices.max())} are not all in 0 to {len(self) - 1}"
            )
        return pictures.read(indices % pictures.count, indices // pictures.count % self._flips)

    def check(self) -> None:
        """Decodes every image that is not in memory, and keeps it where all fit.

        Raises:
            DataError: for images that cannot be decoded, all of them in one line.
        """
        if self._checked:
            for entry in self._all:
                entry.check()

    def fingerprint(self) -> str:
        """Returns a digest of labels, classes, shape, columns and files; of a large folder, of the ends of its files.

        Raises:
            DataError: for files that cannot be read.
        """
        names = [name for entry in self._all for name in entry.names]
        try:
            files = files_fingerprint(self.root, names)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {self.root}: {error}; restore its files") from error
        return hashlib.sha256((super().fingerprint() + files).encode()).hexdigest()


def _rules(
    root: str,
    split: str | None,
    whole: Contents,
    classes: Sequence[str] | None,
    label: str | None,
    joint: Sequence[str],
    text: str | None,
) -> dict[str, Rule]:
    """The reading of every column, the same for all splits: a label means the same in each."""
    place = str(located(root.replace(_PLACE, split or "train")))
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise UsageError(f"images: classes={list(classes)} must be different names; give each once")
    if _PLACE in root and split not in (None, "train") and (whole.metadata or classes is None):
        whole = _training(root, split).joined(joint)
    rules = schema_of(whole, label, text, place)
    if classes is None:
        return rules
    if LABEL not in rules:
        raise UsageError(
            f"images: classes= is given and {place} has no folders of classes; make them, or leave it out"
        )
    return rules | {LABEL: Rule(rules[LABEL].column, "class", tuple(classes))}


def _training(root: str, split: str) -> Contents:
    try:
        train = located(root.replace(_PLACE, "train"))
        return contents_of(open_files(train), train)
    except DataError as error:
        raise DataError(
            f"the classes of split={split} are those of the training split, which cannot be read ({error}); "
            "give classes=[…], in the order of their labels"
        ) from error


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
