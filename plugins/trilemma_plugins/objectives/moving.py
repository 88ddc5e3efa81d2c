"""Images shifted and mirrored by chance, so that no two steps of a training see one alike."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from trilemma.errors import UsageError

Border = Literal["background", "white", "reflect"]
_LEVELS = {"background": -1.0, "white": 1.0}


def check_border(name: str, border: str) -> None:
    """Refuses an unknown border of the objective `name`.

    Raises:
        UsageError: for one.
    """
    if border not in (*_LEVELS, "reflect"):
        raise UsageError(f"{name}: unknown border={border!r}; expected background, white or reflect")


def moved(images: Tensor, generator: torch.Generator, shift: int, border: Border, flip: bool) -> Tensor:
    """Returns images [B, C, H, W], each shifted and mirrored by chance.

    Args:
        images: in [−1, 1].
        generator: of the draws.
        shift: most pixels that an image is shifted by, each way.
        border: the pixels that a shift brings in: "background" (−1), "white" (1) or "reflect".
        flip: whether half of the images are mirrored left to right.
    """
    batch, _, height, width = images.shape
    rows, columns = torch.arange(height).expand(batch, -1), torch.arange(width).expand(batch, -1)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if shift:
        by = torch.randint(0, 2 * shift + 1, (2, batch, 1), generator=generator)
        rows, columns = rows + by[0], columns + by[1]
        sides = (shift,) * 4
        images = (
            pad(images, sides, mode="reflect")
            if border == "reflect"
            else pad(images, sides, value=_LEVELS[border])
        )
    place = torch.arange(batch)[:, None, None]
    return images[place, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
