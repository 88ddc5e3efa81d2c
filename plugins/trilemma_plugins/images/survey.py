"""A look at every image of a folder or zip."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from trilemma.files.picture import decode_picture
from trilemma_plugins.images.files import images_by_class, open_files
from trilemma_plugins.images.unreadable import of_each


@dataclass(frozen=True)
class Survey:
    """The findings of a look at every image of a set.

    Attributes:
        root: folder or zip.
        sizes: how many images there are of each (height, width).
        grey: whether no image has colour.
        classes: names of the classes; none where the images lie in no folders of classes.
    """

    root: Path
    sizes: Counter[tuple[int, int]]
    grey: bool
    classes: tuple[str, ...]

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

    Raises:
        DataError: for images that cannot be read, all at once, or that lie in folders that are not one a class.
    """
    files = open_files(root)
    found = images_by_class(files, root)
    names = [name for name, _ in found]

    def size_and_colour(index: int) -> tuple[tuple[int, int], bool]:
        pixels = decode_picture(files.read(names[index]), 3)
        coloured = bool((pixels != pixels[:1]).any())
        return (int(pixels.shape[1]), int(pixels.shape[2])), coloured

    indices = tqdm(range(len(names)), desc="reads images", unit="image", disable=None)
    answers = of_each(names, root, indices, size_and_colour)
    return Survey(
        root,
        Counter(size for size, _ in answers),
        not any(coloured for _, coloured in answers),
        tuple(sorted({folder for _, folder in found if folder is not None})),
    )
