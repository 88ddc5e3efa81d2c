"""Images that a request brings along: checked, read from files, dealt out to the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trilemma.errors import UsageError


def checked_images(name: str, images: Tensor, shape: Sequence[int]) -> Tensor:
    """The images, where they are finite floating-point ones [n, C, H, W] of the model's shape.

    Raises:
        UsageError: where they are not.
    """
    right = (
        isinstance(images, Tensor)
        and images.dim() == len(shape) + 1
        and images.shape[1:] == torch.Size(shape)
    )
    if not right or not len(images) or not images.is_floating_point():
        found = (
            f"{tuple(images.shape)}, {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise UsageError(f"{name} is {found}; expected floating-point images of shape {('n', *shape)}")
    if not bool(images.isfinite().all()):
        raise UsageError(f"{name} holds values that are not finite; give finite ones")
    return images


def chosen(images: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """The images [B, ...] of samples `indices` [B]: sample i takes entry i modulo their number."""
    return images[(indices.cpu() % len(images)).to(images.device)].to(like.device, like.dtype)


def digest(images: Tensor) -> str:
    """sha256 of images, for provenance."""
    return hashlib.sha256(images.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def read_images(path: str | Path, shape: Sequence[int]) -> Tensor:
    """Images [n, C, H, W] in [−1, 1] from a .png (one picture) or an .npz (its array `samples`, as `write_npz` writes).

    Raises:
        UsageError: for a file that cannot be read, or pictures of another size than the model's.
    """
    path = Path(path)
    channels, height, width = shape
    try:
        images = _from_archive(path) if path.suffix.lower() == ".npz" else _from_picture(path, channels)
    except UsageError:
        raise
    except Exception as error:  # whatever a decoder makes of a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"cannot read {path}: {reason}; give a .png or an .npz with an array named samples"
        ) from error
    if images.shape[1:] != torch.Size(shape):
        raise UsageError(
            f"{path} holds images of shape {tuple(images.shape[1:])}; the model's are {(channels, height, width)}"
        )
    return images


def read_mask(path: str | Path, shape: Sequence[int]) -> Tensor:
    """A mask [n, 1 or C, H, W] of 0 and 1 from a .png (white is 1) or an .npz (above 0 is 1); see `read_images`."""
    return (read_images(path, (1, *shape[1:]) if Path(path).suffix.lower() == ".png" else shape) > 0).float()


def _from_archive(path: Path) -> Tensor:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        if "samples" not in archive:
            raise UsageError(
                f"{path} has no array named samples, only {', '.join(archive.files)}; rename one"
            )
        return torch.from_numpy(archive["samples"]).float()


def _from_picture(path: Path, channels: int) -> Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture.convert("L" if channels == 1 else "RGB"))
    levels = torch.from_numpy(pixels).float().view(*pixels.shape[:2], -1).permute(2, 0, 1)
    return levels[None] / 127.5 - 1
