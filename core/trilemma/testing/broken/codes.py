"""Autoencoders with one fault each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.interfaces.autoencoder import Autoencoder, bounded
from trilemma.models.construction import Constructing

SHAPE = (1, 8, 8)


class RightCodes(Autoencoder):
    """A convolution to codes of half the side, and one back."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 2)
        with Constructing(3):
            self.down = nn.Conv2d(1, 4, 2, stride=2)
            self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return 2, shape[1] // 2, shape[2] // 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.down(x).chunk(2, 1)
        return mean, bounded(log_variance)

    def decode(self, code: Tensor) -> Tensor:
        images: Tensor = self.up(code)
        return images


class OtherShape(RightCodes):
    """Says that its codes are as large as its images."""

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return 2, shape[1], shape[2]


class CentresTheBatch(RightCodes):
    """Takes the mean of the batch away."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x - x.mean(0) if len(x) else x)


class ClampsItsImages(RightCodes):
    """Writes to the images that it encodes."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x.clamp_(-0.5, 0.5))


class NaNIsZero(RightCodes):
    """Takes NaN for 0."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x.nan_to_num())


class LoudestImage(RightCodes):
    """Asks for the largest pixel of the batch, which need not be there."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x.clamp(max=max(1e9, float(x.max()))))


class SingleCodes(RightCodes):
    """Answers in float32 whatever it is."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(x)
        return mean.float(), log_variance.float()


class IdleWeight(RightCodes):
    """Has a weight that it never asks."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2))


class DrawsItsCodes(RightCodes):
    """Draws a code where the mean is asked for."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(x)
        return mean + (log_variance / 2).exp() * torch.randn_like(mean), log_variance


class Unbounded(RightCodes):
    """Does not bound its log-variances."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.down(x).chunk(2, 1)
        return mean, log_variance


class FirstBatch(RightCodes):
    """Is normalised by the first batch alone."""

    def normalise_over(self, batches: Iterable[Tensor]) -> None:
        super().normalise_over(list(batches)[:1])


class LostScale(RightCodes):
    """Does not save its normalisation."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("code_mean", "code_deviation"):
            self.register_buffer(name, getattr(self, name), persistent=False)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        kept = {name: entry for name, entry in state_dict.items() if name in self.state_dict()}
        return super().load_state_dict(kept, strict, assign)


class ForgetsTheScale(RightCodes):
    """Decodes normalised codes as they are."""

    def image(self, normalised: Tensor) -> Tensor:
        return self.decode(normalised)
