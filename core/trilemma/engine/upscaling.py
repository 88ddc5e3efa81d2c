"""Larger versions of pictures with a model that is told a small one: tile by tile, blended where tiles overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.cascade import chunks_of
from trilemma.engine.request import Request
from trilemma.engine.told_images import with_noise
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ImageCondition, ScalarCondition
from trilemma.interfaces.condition.noise import told_log_snr
from trilemma.interfaces.denoiser import Denoiser
from trilemma.machine.memory import check_memory

# Of a tile's side that it shares with its neighbour at least.
_OVERLAP = 4


@dataclass(frozen=True)
class Upscaler:
    """A model that makes large images of small ones.

    Args:
        model: with one image condition, whose sides divide those of its images by one whole number.

    Attributes:
        image: name of that condition.
        level: name of the scalar condition of its noise, the image's with `_level`; None where there is none.

    Raises:
        UsageError: for another model.
    """

    model: Denoiser
    image: str = field(init=False, default="")
    level: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        names = [name for name, found in self.model.conditions.items() if isinstance(found, ImageCondition)]
        if len(names) != 1:
            raise UsageError(
                f"{type(self.model).__name__} takes {len(names)} images and an upscaler one; give another model"
            )
        object.__setattr__(self, "image", names[0])
        level = f"{names[0]}_level"
        scalar = isinstance(self.model.conditions.get(level), ScalarCondition)
        object.__setattr__(self, "level", level if scalar else None)
        channels, *small = self.condition.shape
        large = self.model.image_shape
        whole = all(side % part == 0 for side, part in zip(large[1:], small, strict=True))
        ratios = {side // part for side, part in zip(large[1:], small, strict=True)}
        if channels != large[0] or not whole or len(ratios) != 1:
            raise UsageError(
                f"the model makes images {tuple(large)} of images {self.condition.shape}, which no whole factor "
                "enlarges; give another model"
            )

    @property
    def condition(self) -> ImageCondition:
        """The image condition."""
        found = self.model.conditions[self.image]
        assert isinstance(found, ImageCondition)
        return found

    @property
    def factor(self) -> int:
        """The factor by which sides grow."""
        return int(self.model.image_shape[1] // self.condition.shape[1])

    def check(self, picture: Tensor, name: str = "the picture") -> None:
        """Checks that a picture [C, h, w] can be enlarged.

        Raises:
            UsageError: for other channels, no pixels, or more than the memory has room for when they are enlarged.
        """
        channels = self.condition.shape[0]
        if picture.dim() != 3 or picture.shape[0] != channels or not picture.numel():
            raise UsageError(
                f"{name} is {tuple(picture.shape)} (C, H, W) and the model takes {channels} channels; give another"
            )
        # The picture, its weights, the quotient and its bytes.
        bytes_ = 13 * picture.numel() * self.factor**2
        check_memory(bytes_, f"{name} and its larger version", "cut it into parts")

    def __call__(
        self, picture: Tensor, noise: float = 0.0, **options: Any
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Returns the enlarged picture [C, f h, f w] and the provenance of its tiles.

        A picture smaller than a tile is continued below and to the right by its mirror image, which is cut off again.
        Tiles are drawn as the samples 0, 1, … row by row. Where they overlap, by a quarter of their side at least,
        their pixels are averaged with weights that fall linearly to the edges.

        Args:
            picture: [C, h, w] in [−1, 1].
            noise: s of the noise that is put on it, as the model was trained with; 0 for none.
            options: of a request; conditions beside the image's own in `cond`.

        Raises:
            UsageError: for a picture that does not fit, a level that the model does not know, or a condition that is
                made of the picture.
        """
        self.check(picture)
        for name in (self.image, self.level):
            if name in (options.get("cond") or {}):
                raise UsageError(f"{name} is made of the picture and noise; leave it out of the conditions")
        _, height, width = self.condition.shape
        padded = _padded(picture, (height, width))
        rows, columns = (_starts(*sides) for sides in zip(padded.shape[1:], (height, width), strict=True))
        places = [(row, column) for row in rows for column in columns]
        tiles = torch.stack(
            [padded[:, row : row + height, column : column + width] for row, column in places]
        )
        told = {**(options.pop("cond", None) or {}), **self._told(tiles, noise, options.get("seed", 0))}
        factor = self.factor
        weights = _ramp(factor * height)[:, None] * _ramp(factor * width)
        whole = torch.zeros(padded.shape[0], factor * padded.shape[1], factor * padded.shape[2])
        total = torch.zeros_like(whole[0])
        chunks = chunks_of(Request(self.model, len(tiles), cond=told, **options))
        for indices, images in chunks:
            for index, image in zip(indices.tolist(), images.float().cpu(), strict=True):
                row, column = places[index]
                place = (
                    slice(factor * row, factor * (row + height)),
                    slice(factor * column, factor * (column + width)),
                )
                whole[(slice(None), *place)] += weights * image
                total[place] += weights
        large = whole.div_(total)[:, : factor * picture.shape[1], : factor * picture.shape[2]]
        return large, chunks.provenance

    def _told(self, tiles: Tensor, noise: float, seed: int) -> dict[str, Any]:
        if self.level is None:
            if noise:
                raise UsageError(
                    f"the model is told no level of noise, which noise={noise:g} needs; leave it out"
                )
            return {self.image: tiles}
        scalar = self.model.conditions[self.level]
        assert isinstance(scalar, ScalarCondition)
        told = told_log_snr(scalar, noise)
        return {self.image: with_noise(tiles, noise, seed, torch.arange(len(tiles))), self.level: told}


def _padded(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [C, h, w] continued to a size at least, mirrored at its lower and right border."""
    for dim, length in zip((1, 2), size, strict=True):
        side = picture.shape[dim]
        if side < length:
            place = torch.arange(length) % (2 * side)
            picture = picture.index_select(dim, torch.minimum(place, 2 * side - 1 - place))
    return picture


def _starts(side: int, tile: int) -> list[int]:
    """Places of the fewest tiles that cover a side and share a quarter with their neighbours."""
    step = max(1, tile - tile // _OVERLAP)
    count = max(1, -(-(side - tile) // step) + 1)
    if count == 1:
        return [0]
    return [round(place * (side - tile) / (count - 1)) for place in range(count)]


def _ramp(side: int) -> Tensor:
    """Weights that rise linearly from both ends of a side to its middle, none of them 0."""
    place = torch.arange(side) + 0.5
    return torch.minimum(place, side - place)
