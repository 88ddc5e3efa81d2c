"""The images of a folder or zip with all that it says of them: by metadata, or by one folder a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.errors import DataError, UsageError
from trilemma.interfaces.condition import LABEL
from trilemma_plugins.images.files import Files, images_by_class
from trilemma_plugins.images.metadata import metadata_files, read_rows

SPLIT = "split"


@dataclass(frozen=True)
class Contents:
    """Images, sorted by name.

    Attributes:
        names: of the images.
        columns: by name, a value for each image, None where there is none.
        metadata: whether the columns are those of metadata.
    """

    names: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    metadata: bool

    def part(self, split: str | None, place: str) -> Contents:
        """Returns the images of a split, "train" by default; all of them where there is no column `split`.

        Those of the split `test` are all whose split is `test`, or begins with `test-`.

        Raises:
            UsageError: for a split that is not there.
        """
        found = self.columns.get(SPLIT)
        if found is None:
            return self
        wanted = split or "train"
        rows = [k for k, of in enumerate(found) if of == wanted or str(of).startswith(f"{wanted}-")]
        if not rows:
            splits = ", ".join(sorted({str(of) for of in found}))
            raise UsageError(f"images: {place} has no split={wanted}; its splits are {splits}")
        return Contents(
            tuple(self.names[k] for k in rows),
            {name: [values[k] for k in rows] for name, values in self.columns.items()},
            self.metadata,
        )

    def joined(self, columns: Sequence[str]) -> Contents:
        """Returns the contents with one more column, named by `joint_name`, where all that are joined are there.

        Its values are theirs with commas between them; None where one has none.
        """
        if not columns or not self.metadata or any(column not in self.columns for column in columns):
            return self
        values = [
            None if None in row else ", ".join(map(str, row))
            for row in zip(*(self.columns[column] for column in columns), strict=True)
        ]
        return Contents(self.names, {**self.columns, joint_name(columns): values}, True)


def joint_name(columns: Sequence[str]) -> str:
    """Returns the name of a column that is made of several: theirs, with commas between them."""
    return ", ".join(columns)


def contents_of(files: Files, root: Path) -> Contents:
    """Returns all images of a folder or zip.

    Raises:
        DataError: where there is none, or metadata or folders that do not fit them; all faults of metadata at once.
    """
    if not metadata_files(files.names):
        found = images_by_class(files, root)
        folders = [folder for _, folder in found]
        columns = {} if folders[0] is None else {LABEL: folders}
        return Contents(tuple(name for name, _ in found), columns, metadata=False)
    rows = read_rows(files, root)
    contents = Contents(
        tuple(row.name for row in rows),
        {name: [row.values[name] for row in rows] for name in rows[0].values},
        True,
    )
    unsplit = [row.place for row in rows if SPLIT in row.values and not isinstance(row.values[SPLIT], str)]
    if unsplit:
        raise DataError(f"{unsplit[0]} in {root} has no name as its {SPLIT}; give it one, as train or test")
    return contents
