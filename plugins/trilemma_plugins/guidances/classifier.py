"""Guidance by the gradient of a classifier of noisy states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from trilemma.conversion import convert
from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.guidance import Guidance
from trilemma_plugins.guidances.bundled import load_classifier

_LABELS = "labels"


@dataclass(frozen=True)
class Classifier(Guidance):
    """ε̃ = ε̂ − s σ_t ∇_z log p(y | z_t, t), whatever the network puts out.

    The gradient is taken at z_t, of the classifier alone: no gradient passes through the denoiser, and the NFE stays
    that of the denoiser. p is a softmax of the logits that `model(z, t)` gives, z [B, ...] and t [B] in [0, 1].
    It must have been trained on noised data of the denoiser's process.

    y is `label` (one, or a list of which sample i takes entry i mod length), and the denoiser's condition is what
    `cond` says; without `label` y is the one condition given in `cond`.

    Args:
        model: the classifier, the name of a bundled one ("mnist"), or the directory of one.
        scale: s; 0 is no guidance.
        label: y.

    Raises:
        UsageError: for a scale that is not finite, or a label that is none.

    References:
        Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, arXiv:2105.05233.
    """

    model: nn.Module | str | Path = "mnist"
    scale: float = 1.0
    label: int | Sequence[int] | None = None
    labels: Tensor | None = None  # [B], of the batch at hand

    linear = False
    uncapturable = "the gradient of a classifier is taken on the host"

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise UsageError(f"classifier: scale={self.scale!r} is not finite; give for example scale=1")
        if self.label is not None and not _are_labels(self.label):
            raise UsageError(
                f"classifier: label={self.label!r} is no class; give an integer or a list of them"
            )
        if not isinstance(self.model, nn.Module):
            object.__setattr__(self, "model", load_classifier(self.model))

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)]

    def targets(self, cond: Mapping[str, Any], indices: Tensor) -> dict[str, Tensor]:
        given = self.label if self.label is not None else next(iter(_wanted(cond).values()))
        labels = torch.as_tensor(given, dtype=torch.int64).reshape(-1)
        return {_LABELS: labels[indices.cpu() % len(labels)].to(indices.device)}

    def for_batch(self, targets: Mapping[str, Tensor]) -> Guidance:
        return Classifier(self.model, self.scale, self.label, targets[_LABELS])

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        if self.scale == 0:
            return predictions[0]
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = denoiser.process.alpha(time), denoiser.process.sigma(time)
        _, q = convert("eps", denoiser.parameterization, alpha, sigma)
        # A shift of ε̂ by δ at the same z shifts any other parameterization by q·δ.
        return predictions[0] - (self.scale * sigma * q).item() * self.gradient(z, t)

    def gradient(self, z: Tensor, t: float) -> Tensor:
        """∇_z log p(y | z, t) [B, ...], in the classifier's dtype and back in that of z."""
        assert isinstance(self.model, nn.Module) and self.labels is not None
        wanted = next((entry.dtype for entry in self.model.parameters()), z.dtype)
        # Tensors made in inference mode never take part in autograd; copies made outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            state = z.to(wanted, copy=True).detach().clone().requires_grad_()
            labels = self.labels.clone()
            logits = self.model(state, torch.full((len(z),), t, dtype=wanted, device=z.device))
            chosen = log_softmax(logits, 1).gather(1, labels[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), state)
        return gradient.to(z.dtype)

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if denoiser.process.components != 1:
            raise UsageError("classifier guides processes of one component; this one has more")
        if self.label is None and len(_wanted(cond)) != 1:
            raise UsageError("classifier needs a class to guide to; give label=7, or one condition in cond")
        assert isinstance(self.model, nn.Module)
        random = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
        if any(module.training and isinstance(module, random) for module in self.model.modules()):
            raise UsageError("the classifier is in training mode; call classifier.eval() first")


def _wanted(cond: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cond.items() if value is not None}


def _are_labels(value: Any) -> bool:
    entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return bool(entries) and all(type(entry) is int and entry >= 0 for entry in entries)
