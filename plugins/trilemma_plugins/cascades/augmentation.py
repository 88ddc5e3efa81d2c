"""Noise and blur on the image that a network is told, so that it is not misled by the faults of a stage before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ImageCondition, ScalarCondition
from trilemma.interfaces.condition.noise import most_noise
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.noise_levels import log_snr_of, noised

NARROWEST, WIDEST = 0.4, 0.6


@dataclass(frozen=True)
class ConditioningAugmentation(Objective):
    """Another objective, whose network is told a noised image √(1 − s²) x + s ξ, s ~ U(0, S), and λ = log(1/s² − 1).

    λ is told under the name `level`, a scalar condition of the network: its lowest value is λ(S), and a λ above its
    highest is told as that one. In sampling, a cascade is told which s to use. Before the noise, a part of the images
    is blurred by a Gaussian of three pixels with a deviation ~ U(0.4, 0.6); in sampling none is.

    Args:
        objective: such as simple(drop={"class":0.1}); simple by default.
        image: name of the image condition.
        level: name of the scalar condition; the image's with `_level` by default.
        blur: part of the images that are blurred.

    Raises:
        UsageError: for a part that is none; in training, for a network without these conditions.

    References:
        Ho et al., Cascaded Diffusion Models for High Fidelity Image Generation, arXiv:2106.15282.
    """

    objective: Objective | None = None
    image: str = "low"
    level: str = ""
    blur: float = 0.5

    def __post_init__(self) -> None:
        if self.objective is not None and not isinstance(self.objective, Objective):
            raise UsageError(
                f"conditioning-augmentation: objective={self.objective!r} is none; write for example "
                "objective=simple()"
            )
        if not 0 <= self.blur <= 1:
            raise UsageError(
                f"conditioning-augmentation: blur={self.blur!r} is no part; give a number from 0 to 1"
            )
        object.__setattr__(self, "level", self.level or f"{self.image}_level")
        for name in ("frozen", "averaged"):
            object.__setattr__(self, name, getattr(self.of, name))

    @property
    def of(self) -> Objective:
        """The objective of the network that is told."""
        return self.objective or lookup.objective("simple")

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return self.of.parts(model)

    def updates(self) -> tuple[Update, ...]:
        return self.of.updates()

    def provides(self) -> tuple[str, ...]:
        return (*self.of.provides(), self.level)

    def bounds(self) -> Mapping[str, float]:
        return self.of.bounds()

    def finish(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        self.of.finish(model, batches)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of the objective on the noised images."""
        told = self.told(step.denoiser, step.cond, step.generator)
        return self.of.update_loss(update, replace(step, cond={**step.cond, **told}))

    def told(
        self, denoiser: Denoiser, cond: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Returns the noised images and the tensors of their levels, by keyword."""
        scalar = self._level(denoiser)
        images = cond[self.image]
        count, draw = len(images), {"generator": generator, "dtype": torch.float64}
        deviations = NARROWEST + (WIDEST - NARROWEST) * torch.rand(count, **draw)
        chosen = torch.rand(count, **draw) < self.blur
        images = torch.where(chosen.to(images.device).view(-1, 1, 1, 1), blurred(images, deviations), images)
        level = most_noise(scalar) * torch.rand(count, **draw)
        log_snr = log_snr_of(level).clamp(scalar.low, scalar.high)
        prepared = scalar.prepare(log_snr.tolist()).take(torch.arange(count))
        noise = standard_normals(images, generator)
        return {
            self.image: noised(images, level, noise),
            **{name: tensor.to(images.device) for name, tensor in prepared.items()},
        }

    def _level(self, denoiser: Denoiser) -> ScalarCondition:
        found = denoiser.conditions.get(self.level)
        if not isinstance(denoiser.conditions.get(self.image), ImageCondition):
            raise UsageError(
                f"conditioning-augmentation: the network takes no image {self.image!r}; give it one, or image="
            )
        if not isinstance(found, ScalarCondition):
            raise UsageError(
                f"conditioning-augmentation: the network takes no scalar {self.level!r}; give it one whose low is the "
                "λ of the most noise"
            )
        return found


def blurred(images: Tensor, deviations: Tensor) -> Tensor:
    """Returns images [B, C, H, W] under Gaussians of three by three pixels, mirrored at the borders.

    Args:
        images: of two pixels or more each way.
        deviations: of the Gaussians [B], in pixels.
    """
    beside = torch.exp(-0.5 / deviations.square())
    whole = 1 + 2 * beside
    centre, beside = (
        (part / whole).to(images).view(-1, 1, 1, 1) for part in (torch.ones_like(whole), beside)
    )
    wide = pad(images, (1, 1, 1, 1), mode="reflect")
    rows = centre * wide[:, :, 1:-1] + beside * (wide[:, :, :-2] + wide[:, :, 2:])
    return centre * rows[..., 1:-1] + beside * (rows[..., :-2] + rows[..., 2:])
