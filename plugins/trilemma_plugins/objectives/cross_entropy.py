"""The loss of classifiers, of images or of noised ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import time_dtype
from trilemma.interfaces.features import Features
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws

Border = Literal["background", "reflect"]


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """E −log p(y | x) of classifiers and of feature networks that classify; the accuracy is logged beside it.

    A classifier with a process learns p(y | z_t, t) at uniform times, on the table of a discrete process.

    In training an image is shifted and mirrored by chance, and no two steps see it alike.

    Args:
        smoothing: s of the labels, 1 − s for the class and s/classes for each.
        shift: most pixels that an image is shifted by, each way.
        border: "background" (−1) or "reflect": the pixels that a shift brings in.
        flip: whether half of the images are mirrored left to right.

    Raises:
        UsageError: for a number out of range or an unknown border; in training, for a model that has no logits, or data
            without classes.

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, arXiv:1512.00567 (smoothing);
        Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, arXiv:2105.05233 (noised images).
    """

    smoothing: float = 0.0
    shift: int = 0
    border: Border = "background"
    flip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UsageError(
                f"cross-entropy: smoothing={self.smoothing!r} is out of range; give a number from 0 to below 1"
            )
        checked_integer(self.shift, "cross-entropy: shift", 0, what="is no number of pixels")
        if self.border not in ("background", "reflect"):
            raise UsageError(f"cross-entropy: unknown border={self.border!r}; expected background or reflect")

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the mean over the batch and the fraction of examples whose class is the likeliest."""
        labels = self._labels(step)
        images = self.moved(step.x0, step.generator) if step.model.training else step.x0
        logits = self._logits(step, images).float()
        right = (logits.argmax(1) == labels).float().mean()
        return cross_entropy(logits, labels, label_smoothing=self.smoothing), {"accuracy": right}

    def moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns images [B, C, H, W], each shifted and mirrored by chance."""
        batch, _, height, width = images.shape
        rows, columns = torch.arange(height).expand(batch, -1), torch.arange(width).expand(batch, -1)
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.shift:
            by = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), generator=generator)
            rows, columns = rows + by[0], columns + by[1]
            sides = (self.shift,) * 4
            images = (
                pad(images, sides, mode="reflect")
                if self.border == "reflect"
                else pad(images, sides, value=-1)
            )
        place = torch.arange(batch)[:, None, None]
        return images[place, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _labels(self, step: Step) -> Tensor:
        if LABEL not in step.values:
            raise UsageError("cross-entropy: the data have no classes; choose a data set that has")
        return step.values[LABEL].to(step.x0.device)

    def _logits(self, step: Step, images: Tensor) -> Tensor:
        model = step.model
        if isinstance(model, Features) and model.classes:
            return step.network(images)[1]
        if not isinstance(model, Classifier):
            raise UsageError(
                f"cross-entropy: a {type(model).__name__} has no logits; train a classifier or features with classes"
            )
        process = model.process
        if process is None:
            return step.network(images, torch.zeros(len(images), device=images.device))
        t = 1 - uniform_draws(len(images), step.generator, stratified=True)
        if process.table is not None:
            t = torch.ceil(t * process.table) / process.table
        noise = standard_normals(images, step.generator)
        z = process.perturb(images, t, noise)
        return step.network(z, t.to(images.device, time_dtype(images.dtype)))
