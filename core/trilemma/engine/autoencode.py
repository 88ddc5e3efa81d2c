"""Images through an autoencoder and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.engine.images import checked_images
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.loading import load


def autoencode(
    model: Autoencoder | Denoiser | str | Path,
    x: Tensor,
    *,
    tile: int = 0,
    device: str | torch.device | None = None,
) -> Tensor:
    """Returns the images that the codes of images stand for: decode(encode(x)), of the means of the codes.

    Args:
        model: an autoencoder, a latent model, or the name or directory of one.
        x: images [n, C, H, W] in [−1, 1], of any height and width that the autoencoder takes.
        tile: side of the tiles in which codes that are larger are decoded, in places of the code; a quarter of it
            overlaps. 0 leaves that of the autoencoder, which by default decodes whole codes.
        device: where a model given by name goes.

    Returns:
        images [n, C, H, W] in the dtype and on the device of x.

    Raises:
        UsageError: for a model without an autoencoder, or images that it does not take.
    """
    autoencoder = autoencoder_of(load(model, device=device) if isinstance(model, str | Path) else model)
    shape = (autoencoder.shape[0], *x.shape[2:]) if isinstance(x, Tensor) else autoencoder.shape
    checked_images("x", x, shape)
    autoencoder.code_shape(shape)
    view, before = Latent(autoencoder, shape), int(autoencoder.tile)
    autoencoder.tile = checked_integer(tile, "tile", 0, what="is no side of a tile") or before
    try:
        return view.images(view.data(x))
    finally:
        autoencoder.tile = before


def autoencoder_of(model: object) -> Autoencoder:
    """Returns an autoencoder itself, or that of a latent model.

    Raises:
        UsageError: for any other model.
    """
    found = (
        model.view.autoencoder if isinstance(model, Denoiser) and isinstance(model.view, Latent) else model
    )
    if not isinstance(found, Autoencoder):
        raise UsageError(f"a {type(model).__name__} has no codes; give an autoencoder or a latent model")
    return found
