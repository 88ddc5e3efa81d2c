"""Random degradations of pictures: blur, down-sampling and noise in a random order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma_plugins.bsr.camera import drawn_sensor, photographed
from trilemma_plugins.bsr.draws import Draws
from trilemma_plugins.bsr.noises import gaussian, poisson, speckle
from trilemma_plugins.bsr.operations import (
    RULES,
    blurred,
    compressed,
    from_levels,
    resized_to,
    sharpened,
    shrunk,
    to_levels,
)

Operation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """The numbers of a variant of the degradation.

    Attributes:
        width: of blurs, times that of `bsr`.
        noise: least and largest level of Gaussian noise, in 255ths.
        quality: least and largest of JPEG.
        resize: probability that the first down-sampling is a resizing.
        camera: probability of the camera's noise.
        sharpen: probability that the picture is sharpened first.
        rounds: how often blur, down-sampling and noise come.
    """

    width: float = 1.0
    noise: tuple[int, int] = (2, 25)
    quality: tuple[int, int] = (30, 95)
    resize: float = 0.75
    camera: float = 0.25
    sharpen: float = 0.0
    rounds: int = 1


VARIANTS: Final[Mapping[str, Variant]] = {
    "bsr": Variant(),
    "bsr-light": Variant(width=0.25, noise=(1, 2), quality=(80, 95), resize=0.8, camera=0.0),
    "bsr-plus": Variant(sharpen=0.5, rounds=2),
}
_HALVED_FIRST = 0.25
_COMPRESSED = 0.9
_SHUFFLED = 0.5


@dataclass(frozen=True)
class Degradation:
    """A random degradation, a pure function of a picture and its key (2103.14006).

    `bsr`: seven operations in a random order, the second down-sampling after the first: two blurs, two down-samplings,
    Gaussian noise of a level from {2, …, 25}/255, JPEG of a quality from 30 to 95 with the probability 0.9, noise of a
    camera's sensor with 0.25; then JPEG once more. With factor = 4, a quarter of the pictures is halved before, and
    degraded by 2.

    `bsr-light`: blurs a quarter as wide, levels {1, 2}/255, qualities from 80, no camera.

    `bsr-plus`: half of the pictures are sharpened first; two rounds of blur, resizing (up by U(1, 2) with the
    probability 0.2, down by U(1, 2 factor) with 0.7, never below half of the final size), Gaussian noise, Poisson
    noise, speckle, JPEG and the camera's noise, in a random order within each round or, for half of the pictures,
    across both.

    Args:
        kind: bsr, bsr-light or bsr-plus.
        factor: by which the sides shrink, from 1.
        seed: of all draws, beside the keys.

    Raises:
        UsageError: for an unknown kind or a factor out of range.
    """

    kind: str = "bsr"
    factor: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in VARIANTS:
            raise UsageError(f"unknown degradation {self.kind!r}; choose from {', '.join(VARIANTS)}")
        checked_integer(self.factor, "factor", 1, 16)
        checked_integer(self.seed, "seed", 0, 2**63 - 1, what="is not a seed")

    def __call__(self, picture: Tensor, key: int) -> Tensor:
        """Returns the degraded picture uint8 [C, H/factor, W/factor]; the picture stays as it is.

        Args:
            picture: uint8 [C, H, W], one channel or three.
            key: of the picture; the same one gives the same result.

        Raises:
            UsageError: for sides that the factor does not divide, or another number of channels.
        """
        channels, *sides = picture.shape
        height, width = self.size(*sides)
        if channels not in (1, 3):
            raise UsageError(f"a picture of {channels} channels cannot be degraded; give one or three")
        draws, variant = Draws(self.seed, key), VARIANTS[self.kind]
        image = from_levels(picture)
        if variant.rounds == 1:
            image = _shuffled(image, self.factor, (height, width), variant, draws)
        else:
            image = _in_rounds(image, self.factor, (height, width), variant, draws)
        return to_levels(compressed(image, draws.integer(*variant.quality)))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the sides of what a picture becomes.

        Raises:
            UsageError: for sides that the factor does not divide.
        """
        if height % self.factor or width % self.factor or not height or not width:
            raise UsageError(
                f"a picture of {height}×{width} (H×W) cannot be shrunk by {self.factor}; cut it to multiples of that"
            )
        return height // self.factor, width // self.factor


def _shuffled(image: Tensor, factor: int, size: tuple[int, int], variant: Variant, draws: Draws) -> Tensor:
    if factor == 4 and draws.chance(_HALVED_FIRST):
        image = resized_to(image, (image.shape[1] // 2, image.shape[2] // 2), draws.one_of(RULES))
        factor = 2
    operations: list[Operation] = [
        lambda x: blurred(x, factor, variant.width, draws),
        lambda x: blurred(x, factor, variant.width, draws),
        lambda x: shrunk(x, factor, variant.resize, draws),
        lambda x: resized_to(x, size, draws.one_of(RULES)),
        *_spoiling(variant, draws),
    ]
    order = draws.order(len(operations))
    first, second = order.index(2), order.index(3)
    if first > second:
        order[first], order[second] = order[second], order[first]
    for number in order:
        image = operations[number](image)
    return image


def _spoiling(variant: Variant, draws: Draws) -> list[Operation]:
    """Gaussian noise, JPEG and the camera's noise."""
    return [
        lambda x: gaussian(x, draws.integer(*variant.noise) / 255, draws),
        lambda x: compressed(x, draws.integer(*variant.quality)) if draws.chance(_COMPRESSED) else x,
        lambda x: photographed(x, drawn_sensor(draws), draws) if draws.chance(variant.camera) else x,
    ]


def _in_rounds(image: Tensor, factor: int, size: tuple[int, int], variant: Variant, draws: Draws) -> Tensor:
    if draws.chance(variant.sharpen):
        image = sharpened(image, draws.uniform(1, 3), 0.5)
    a_round: list[Operation] = [
        lambda x: blurred(x, factor, variant.width, draws),
        lambda x: _scaled(x, factor, size, draws),
        lambda x: poisson(x, 10 ** draws.uniform(2, 4), draws.chance(0.5), draws),
        lambda x: speckle(x, draws.integer(*variant.noise) / 255, draws),
        *_spoiling(variant, draws),
    ]
    count = len(a_round)
    if draws.chance(_SHUFFLED):
        order = draws.order(variant.rounds * count)
    else:
        order = [number for _ in range(variant.rounds) for number in draws.order(count)]
    for number in order:
        image = a_round[number % count](image)
    return resized_to(image, size, draws.one_of(RULES))


def _scaled(image: Tensor, factor: int, final: tuple[int, int], draws: Draws) -> Tensor:
    """An image resized up or down, or as it is; to half of the final size at least."""
    way = draws.uniform(0, 1)
    if way < 0.1:
        return image
    ratio = 1 / draws.uniform(1, 2) if way < 0.3 else draws.uniform(1, 2 * factor)
    height, width = (
        max(int(side / ratio), end // 2) for side, end in zip(image.shape[1:], final, strict=True)
    )
    return resized_to(image, (height, width), draws.one_of(RULES))
