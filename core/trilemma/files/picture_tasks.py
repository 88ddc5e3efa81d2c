"""Pictures to read, one or those of a folder, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trilemma.errors import DataError, OutputError, UsageError, message_of
from trilemma.files.picture import FILE_LIMIT, decode_picture, is_grey
from trilemma.files.regular import read_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class PictureTask:
    """A picture to read and a file to write.

    Attributes:
        source: the picture.
        name: its name inside the folder that it was found in.
        target: the file.
        copy: number of the file, where several are made of one picture.
    """

    source: Path
    name: str
    target: Path
    copy: int = 0

    def levels(self, channels: int | None = None) -> Tensor:
        """Returns the pixels uint8 [C, H, W] of the picture; of one channel where it is grey, unless C is given.

        Raises:
            DataError: for a file that cannot be read.
        """
        try:
            blob = read_regular(self.source, FILE_LIMIT)
            return decode_picture(blob, channels or (1 if is_grey(blob) else 3))
        except Exception as error:
            # Pillow may raise anything.
            reason = getattr(error, "strerror", None) or message_of(error)
            raise DataError(f"cannot read {self.source}: {reason}; replace it") from error


def picture_tasks(
    source: Path, out: Path, copies: int = 1, *, force: bool = False, resume: bool = False
) -> list[PictureTask]:
    """Returns what is to be made of a picture, or of all pictures of a folder and those in it, sorted by name.

    A picture becomes a PNG of its name in the folder `out`, outside of which pictures are looked for; one picture alone
    may become a file `out` that ends in .png. Several copies are numbered: NAME.1.png, NAME.2.png and so on.

    Args:
        source: the picture or folder.
        out: where to write.
        copies: files of each picture.
        force: whether files that are there are replaced.
        resume: whether files that are there stay, and only those that are missing are made.

    Raises:
        UsageError: where there are no pictures, two would become one file, or one would be replaced by its own.
        OutputError: for a file that is there, without `force` and `resume`.
    """
    if force and resume:
        raise UsageError("--force replaces the pictures that are there and --resume leaves them; give one")
    if not source.exists():
        raise UsageError(f"there is no {source}; give a picture, or a folder of pictures")
    tasks = [
        PictureTask(path, path.relative_to(home).as_posix(), target, copy)
        for path, home in _found(source, out)
        for copy, target in enumerate(_targets(path, home, source, out, copies))
    ]
    targets = [task.target for task in tasks]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UsageError(f"two pictures of {source} would become {twice}; rename one")
    sources = {task.source.resolve() for task in tasks}
    if own := [target for target in targets if target.resolve() in sources]:
        raise UsageError(f"{own[0]} is one of the pictures that are read; give another --out")
    there = {target for target in targets if target.exists()}
    if there and not force and not resume:
        first = min(there)
        raise OutputError(
            f"{first} exists; give another --out, or --force to replace it, or --resume to make what is missing"
        )
    return [task for task in tasks if force or task.target not in there]


def _found(source: Path, out: Path) -> Sequence[tuple[Path, Path]]:
    """Pictures and the folder that their names are inside of."""
    if not source.is_dir():
        return [(source, source.parent)]
    made, home = out.resolve(), source.resolve()
    inside = [
        path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    # What an earlier run made is not read again.
    found = [path for path in inside if made == home or made not in path.resolve().parents]
    if not found:
        raise UsageError(f"{source} holds no pictures ({', '.join(SUFFIXES)}); give another folder")
    return [(path, source) for path in found]


def _targets(path: Path, home: Path, source: Path, out: Path, copies: int) -> list[Path]:
    """The files that a picture becomes."""
    if out.suffix and not out.is_dir():
        if source.is_dir() or copies > 1:
            raise UsageError(f"--out {out} is the name of one file, and several are made; name a folder")
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out {out} is neither FILE.png nor a folder; give one")
        return [out]
    name = path.relative_to(home)
    endings = [".png"] if copies == 1 else [f".{copy + 1}.png" for copy in range(copies)]
    return [out / name.with_suffix(ending) for ending in endings]
