"""Images and masks that a request names by their files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.files.arrays import read_array
from trilemma.files.picture import FILE_LIMIT, decode_picture, fitted
from trilemma.files.regular import read_regular

Tell = Callable[[str], object]


def _nobody(line: str) -> None:
    """Tells nobody."""


def read_images(path: str | Path, shape: Sequence[int], tell: Tell = _nobody) -> Tensor:
    """Returns images [n, C, H, W] in [−1, 1] from a file: one picture, or the array `samples` of an .npz.

    A picture is read as a data set reads it, see `decode_picture`: one of another size is resized (Lanczos, until it
    just covers the model's) and centre-cropped. An array of floating-point numbers is taken as it is, as `write_npz`
    writes it, and one of bytes u as 2u/255 − 1.

    Args:
        path: of the file.
        shape: (C, H, W) of the model's images.
        tell: is told, in a line, what was done to a picture of another size.

    Raises:
        UsageError: for a file that cannot be read, or an array of another shape than the model's.
    """
    with _telling(path):
        if _is_archive(path):
            return _in_range(_array(path, shape))
        pixels = _picture(path, shape[0], shape, Image.Resampling.LANCZOS, tell)
        return pixels.float().div_(127.5).sub_(1)


def read_mask(path: str | Path, shape: Sequence[int], tell: Tell = _nobody) -> Tensor:
    """Returns a mask [n, 1 or C, H, W] of 0 and 1 from a picture, whose levels from 128 on are 1, or an .npz (above 0).

    A picture of another size is cut as `read_images` cuts it, by the nearest pixel, so that it stays of 0 and 1.

    Raises:
        UsageError: as `read_images` does.
    """
    with _telling(path):
        if _is_archive(path):
            return (_array(path, (None, *shape[1:])) > 0).float()
        return (_picture(path, 1, shape, Image.Resampling.NEAREST, tell) >= 128).float()


def _is_archive(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".npz"


def _array(path: str | Path, shape: Sequence[int | None]) -> Tensor:
    try:
        return torch.from_numpy(read_array(Path(path), "samples", (None, *shape)))
    except KeyError as error:
        names = ", ".join(map(str, error.args[0][:5])) or "none"
        raise UsageError(f"{path} has no array named samples, only {names}; rename one") from error


def _in_range(array: Tensor) -> Tensor:
    if array.dtype == torch.uint8:
        return array.float().div_(127.5).sub_(1)
    if not array.is_floating_point():
        raise ValueError(f"its array samples holds {array.dtype}, not floating-point numbers or bytes")
    return array.float()


def _picture(
    path: str | Path, channels: int, shape: Sequence[int], method: Image.Resampling, tell: Tell
) -> Tensor:
    """Pixels uint8 [1, channels, H, W] of the size in a shape (C, H, W)."""
    pixels = decode_picture(read_regular(path, FILE_LIMIT), channels)
    found, size = tuple(pixels.shape[1:]), (shape[1], shape[2])
    if found == size:
        return pixels[None]
    cut = fitted(pixels.permute(1, 2, 0).numpy(), size, method)
    tell(
        f"{path}: {found[0]}×{found[1]} (H×W) resized to cover {size[0]}×{size[1]} ({method.name.lower()}) and "
        "cropped at the centre"
    )
    return torch.from_numpy(cut.transpose(2, 0, 1).copy())[None]


@contextlib.contextmanager
def _telling(path: str | Path) -> Iterator[None]:
    """Turns whatever a decoder makes of a damaged file into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"cannot read {path}: {reason}; give a picture or an .npz with an array named samples"
        ) from error
