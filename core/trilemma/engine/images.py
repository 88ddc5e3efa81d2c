"""Images that a request brings along: checked, dealt out to the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.errors import UsageError


def checked_images(name: str, images: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the images where they are finite floating-point ones [n, C, H, W] of the model's shape.

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
    """Returns the images [B, ...] of samples `indices` [B]: sample i takes entry i modulo their number."""
    return images[(indices.cpu() % len(images)).to(images.device)].to(like.device, like.dtype)


def digest(images: Tensor) -> str:
    """Returns the sha256 of images, for provenance."""
    return hashlib.sha256(images.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
