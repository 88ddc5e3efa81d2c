"""A look at every image of a folder or zip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from trilemma.files.picture import decode_picture
from trilemma.interfaces.column import Column
from trilemma.interfaces.condition import LABEL
from trilemma_plugins.images.contents import contents_of
from trilemma_plugins.images.files import open_files
from trilemma_plugins.images.schema import TEXT, Rule, columns_of, schema_of
from trilemma_plugins.images.unreadable import of_each

_CAPTIONS = 8


@dataclass(frozen=True)
class Survey:
    """The findings of a look at every image of a set.

    Attributes:
        root: folder or zip.
        sizes: how many images there are of each (height, width).
        grey: whether no image has colour.
        classes: names of the classes; none where the images have none.
        columns: the reading of every column of the metadata, by the name of its condition.
        captions: some of the texts of the column `text`.
    """

    root: Path
    sizes: Counter[tuple[int, int]]
    grey: bool
    classes: tuple[str, ...]
    columns: Mapping[str, Rule] = field(default_factory=dict)
    captions: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of images."""
        return self.sizes.total()

    @property
    def shorter_side(self) -> int:
        """Median of the shorter sides, in pixels."""
        sides = sorted(min(size) for size in self.sizes.elements())
        return sides[len(sides) // 2]


def look(root: Path) -> Survey:
    """Returns the survey of a folder or zip; every image is decoded.

    Of images with a column of splits those of `train` count.

    Raises:
        DataError: for images that cannot be read, all at once, that lie in folders that are not one a class, or whose
            metadata do not fit them.
        UsageError: for splits without `train`.
    """
    files = open_files(root)
    whole = contents_of(files, root)
    rules, found = schema_of(whole, None, None, str(root)), whole.part(None, str(root))
    names = found.names

    def size_and_colour(index: int) -> tuple[tuple[int, int], bool]:
        pixels = decode_picture(files.read(names[index]), 3)
        coloured = bool((pixels != pixels[:1]).any())
        return (int(pixels.shape[1]), int(pixels.shape[2])), coloured

    indices = tqdm(range(len(names)), desc="reads images", unit="image", disable=None)
    answers = of_each(names, root, indices, size_and_colour)
    columns = columns_of(rules, found, 1) if whole.metadata else {}
    return Survey(
        root,
        Counter(size for size, _ in answers),
        not any(coloured for _, coloured in answers),
        rules[LABEL].classes if LABEL in rules else (),
        rules if whole.metadata else {},
        _some(columns[TEXT]) if TEXT in columns else (),
    )


def _some(texts: Column) -> tuple[str, ...]:
    """A few different texts, spread over all."""
    places = torch.linspace(0, len(texts) - 1, min(len(texts), 4 * _CAPTIONS)).long()
    return tuple(dict.fromkeys(text for text in texts.at(places) if text is not None))[:_CAPTIONS]
