"""The loss of classifiers, of images or of noised ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

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
from trilemma_plugins.objectives.moving import Border, check_border, moved


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """E −log p(y | x) of classifiers and of feature networks that classify; the accuracy is logged beside it.

    A classifier with a process learns p(y | z_t, t) at uniform times, on the table of a discrete process.

    In training an image is shifted and mirrored by chance, and no two steps see it alike.

    Args:
        smoothing: s of the labels, 1 − s for the class and s/classes for each.
        shift: most pixels that an image is shifted by, each way.
        border: "background" (−1), "white" (1) or "reflect": the pixels that a shift brings in.
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
        check_border("cross-entropy", self.border)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the mean over the batch and the fraction of examples whose class is the likeliest."""
        labels = self._labels(step)
        images = self.moved(step.x0, step.generator) if step.model.training else step.x0
        logits = self._logits(step, images).float()
        right = (logits.argmax(1) == labels).float().mean()
        return cross_entropy(logits, labels, label_smoothing=self.smoothing), {"accuracy": right}

    def moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns images [B, C, H, W], each shifted and mirrored by chance."""
        return moved(images, generator, self.shift, self.border, self.flip)

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
