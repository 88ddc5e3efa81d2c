"""Image files in a folder or a zip, by name, without extracting anything."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from trilemma.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class Files(Protocol):
    """Files by their path inside a root."""

    def names(self) -> list[str]:
        """Every file, as a path with forward slashes."""

    def read(self, name: str) -> bytes:
        """The content of a file."""


class FolderFiles:
    """The files in a folder and its subfolders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


class ZipFiles:
    """The members of a zip."""

    def __init__(self, root: Path) -> None:
        self._zip = zipfile.ZipFile(root)

    def names(self) -> list[str]:
        return [member.filename for member in self._zip.infolist() if not member.is_dir()]

    def read(self, name: str) -> bytes:
        return self._zip.read(name)


def open_files(root: Path) -> Files:
    """The files of a folder or zip.

    Raises:
        DataError: for a root that is neither.
    """
    if root.is_dir():
        return FolderFiles(root)
    try:
        return ZipFiles(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{root} is neither a folder nor a readable zip ({error}); give root= one") from error


def images_by_class(files: Files, root: Path) -> list[tuple[str, str]]:
    """(name, class) of every image, sorted; the class is the name of the folder the image lies in.

    Folders around all classes are skipped; hidden files, and those that are no images by suffix, are left out.

    Raises:
        DataError: where there is no image, or the folders are not one a class.
    """
    paths = [path for path in map(PurePosixPath, files.names()) if _is_image(path)]
    if not paths:
        raise DataError(
            f"{root} holds no images ({', '.join(sorted(SUFFIXES))}); put them in one folder a class"
        )
    paths.sort(key=lambda path: path.parts)
    for path in paths:
        if len(path.parts) < 2:
            raise DataError(f"{path} in {root} lies in no folder of a class; put it in one")
        if path.parts[:-2] != paths[0].parts[:-2]:
            raise DataError(
                f"{path} and {paths[0]} in {root} are not in one folder of classes; keep one folder a class, and "
                "where there is one such folder a split, write {split} in root= for its name"
            )
    return [(str(path), path.parts[-2]) for path in paths]


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES
