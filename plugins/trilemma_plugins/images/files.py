"""Image files in a folder or a zip, by name, without extracting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from trilemma.errors import DataError
from trilemma.files.archive import ZipMembers
from trilemma.files.picture import FILE_LIMIT
from trilemma.files.regular import read_regular

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class Files(Protocol):
    """Files by their path inside a root, with forward slashes.

    Attributes:
        names: of every file that is not hidden.
    """

    names: list[str]

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """Returns the content of a file of at most `limit` bytes."""


class FolderFiles:
    """The files in a folder and its subfolders, links to folders followed.

    Raises:
        DataError: for a link to a folder around it, or a folder that cannot be listed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = list(self._below(root, ""))

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        return read_regular(self.root / name, limit)

    def _below(self, folder: Path, prefix: str, around: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
        """Returns whatever is no folder as a file, broken links and pipes too: reading it says why it is none."""
        try:
            found = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot list {folder}: {error.strerror}; check its permissions") from error
        identity = (found.st_dev, found.st_ino)
        if identity in around:
            raise DataError(f"{folder} is a link to a folder that it lies in; remove it")
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from self._below(Path(entry), f"{prefix}{entry.name}/", (*around, identity))
            else:
                yield prefix + entry.name


class ZipFiles(ZipMembers):
    """The members of a zip."""

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        return super().read(name, limit)


def open_files(root: Path) -> Files:
    """Returns the files of a folder or zip.

    Raises:
        DataError: for a root that is neither, or whose names cannot be used.
    """
    return FolderFiles(root) if root.is_dir() else ZipFiles(root)


def images_by_class(files: Files, root: Path) -> list[tuple[str, str | None]]:
    """Returns (name, class) of every image, sorted; the class is the name of the folder the image lies in.

    It is None where all images lie in the root itself. Folders around all classes are skipped; hidden files, and those
    that are no images by suffix, are left out.

    Raises:
        DataError: where there is no image, a name is not in UTF-8, or the folders are not one a class.
    """
    paths = [path for path in map(PurePosixPath, files.names) if is_image(path)]
    if not paths:
        raise DataError(
            f"{root} holds no images ({', '.join(sorted(SUFFIXES))}); put them in it, or in one folder a class"
        )
    paths.sort(key=lambda path: path.parts)
    flat = [path for path in paths if len(path.parts) == 1]
    for path in paths:
        if not _is_text(str(path)):
            raise DataError(
                f"{root} holds {os.fsencode(str(path))!r}, a name that is not text in UTF-8; rename it"
            )
        if flat and len(path.parts) > 1:
            raise DataError(
                f"{path} in {root} lies in a folder, {flat[0]} in none; put all in one folder a class, or none in any"
            )
        if path.parts[:-2] != paths[0].parts[:-2]:
            raise DataError(
                f"{path} and {paths[0]} in {root} are not in one folder of classes; keep one folder a class, and "
                "where there is one such folder a split, write {split} in root= for its name"
            )
    return [(str(path), path.parts[-2] if len(path.parts) > 1 else None) for path in paths]


def is_image(name: str | PurePosixPath) -> bool:
    """Returns whether a file is an image by its suffix, and not hidden."""
    path = PurePosixPath(name)
    return not any(map(_is_hidden, path.parts)) and path.suffix.lower() in SUFFIXES


def _is_hidden(part: str) -> bool:
    """Returns whether a file manager left the file, or hides it: .DS_Store, ._1.png, __MACOSX."""
    return part.startswith(".") or part == "__MACOSX"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        # Python keeps bytes that are not UTF-8 as surrogates.
        return False
    return True
