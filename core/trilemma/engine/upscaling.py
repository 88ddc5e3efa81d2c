"""Larger versions of pictures with a model that is told a small one: tile by tile, blended where tiles overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.engine.told_images import with_noise
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ImageCondition, ScalarCondition
from trilemma.interfaces.condition.noise import told_log_snr
from trilemma.interfaces.denoiser import Denoiser

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
            UsageError: for other channels, or sides shorter than those of the image condition.
        """
        channels, height, width = self.condition.shape
        if picture.shape[0] != channels or picture.shape[1] < height or picture.shape[2] < width:
            raise UsageError(
                f"{name} is {tuple(picture.shape)} (C, H, W) and the model takes {channels} channels of at least "
                f"{height}×{width} pixels; give a larger one"
            )

    def __call__(
        self, picture: Tensor, noise: float = 0.0, **options: Any
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Returns the enlarged picture [C, f h, f w] and the provenance of its tiles.

        Tiles are drawn as the samples 0, 1, … row by row. Where they overlap, by a quarter of their side at least,
        their pixels are averaged with weights that fall linearly to the edges.

        Args:
            picture: [C, h, w] in [−1, 1].
            noise: s of the noise that is put on it, as the model was trained with; 0 for none.
            options: of a request; conditions beside the image's own in `cond`.

        Raises:
            UsageError: for a picture that does not fit, or a level that the model does not know.
        """
        self.check(picture)
        _, height, width = self.condition.shape
        rows, columns = (_starts(*sides) for sides in ((picture.shape[1], height), (picture.shape[2], width)))
        places = [(row, column) for row in rows for column in columns]
        tiles = torch.stack(
            [picture[:, row : row + height, column : column + width] for row, column in places]
        )
        told = {**(options.pop("cond", None) or {}), **self._told(tiles, noise, options.get("seed", 0))}
        drawn = sample(self.model, len(tiles), cond=told, **options)
        factor = self.factor
        weights = _ramp(factor * height)[:, None] * _ramp(factor * width)
        whole = torch.zeros(picture.shape[0], factor * picture.shape[1], factor * picture.shape[2])
        total = torch.zeros_like(whole[0])
        for (row, column), image in zip(places, drawn.samples.float().cpu(), strict=True):
            place = (
                slice(factor * row, factor * (row + height)),
                slice(factor * column, factor * (column + width)),
            )
            whole[(slice(None), *place)] += weights * image
            total[place] += weights
        return whole / total, drawn.provenance

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
