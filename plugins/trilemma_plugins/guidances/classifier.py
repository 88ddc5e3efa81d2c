"""Guidance by the gradient of a classifier of noisy states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.guidance import Guidance
from trilemma.numerics.conversion import convert
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

    linear = False
    uncapturable = "the gradient of a classifier is taken on the host"

    neutral_scale = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label is not None and not _are_labels(self.label):
            raise UsageError(
                f"classifier: label={self.label!r} is no class; give an integer or a list of them"
            )

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)]

    def targets(self, cond: Mapping[str, Any], indices: Tensor) -> dict[str, Tensor]:
        given = self.label if self.label is not None else next(iter(_wanted(cond).values()))
        labels = torch.as_tensor(given, dtype=torch.int64).reshape(-1)
        return {_LABELS: labels[indices.cpu() % len(labels)].to(indices.device)}

    def for_batch(self, targets: Mapping[str, Tensor]) -> Guidance:
        return OfBatch(self.model, self.scale, self.label, targets[_LABELS])

    def classifier(self, device: torch.device) -> nn.Module:
        """The classifier; one that is given by name is loaded once a device."""
        given = self.model
        return given if isinstance(given, nn.Module) else load_classifier(given, str(device))

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if denoiser.process.components != 1:
            raise UsageError("classifier guides processes of one component; this one has more")
        if self.label is None and len(_wanted(cond)) != 1:
            raise UsageError("classifier needs a class to guide to; give label=7, or one condition in cond")
        device = next((entry.device for entry in denoiser.parameters()), torch.device("cpu"))
        classifier = self.classifier(device)
        shape = getattr(classifier, "shape", denoiser.shape)
        if tuple(shape) != denoiser.shape:
            raise UsageError(
                f"the classifier is for states of shape {tuple(shape)}, not of {denoiser.shape}; give another as model="
            )
        random = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
        if any(module.training and isinstance(module, random) for module in classifier.modules()):
            raise UsageError("the classifier is in training mode; call classifier.eval() first")
        if any(entry.device != device for entry in classifier.parameters()):
            raise UsageError(f"the classifier is not on {device} like the model; move it there")


@dataclass(frozen=True)
class OfBatch(Classifier):
    """The guidance of a batch.

    Args:
        labels: y [B].
    """

    labels: Tensor | None = None

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
        assert self.labels is not None
        classifier = self.classifier(z.device)
        wanted = next((entry.dtype for entry in classifier.parameters()), z.dtype)
        # Tensors made in inference mode never take part in autograd; copies made outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            state = z.detach().clone().to(wanted).requires_grad_()
            labels = self.labels.clone()
            logits = classifier(state, torch.full((len(z),), t, dtype=time_dtype(wanted), device=z.device))
            chosen = log_softmax(logits, 1).gather(1, labels[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), state)
        return gradient.to(z.dtype)


def _wanted(cond: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cond.items() if value is not None}


def _are_labels(value: Any) -> bool:
    entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return bool(entries) and all(type(entry) is int and 0 <= entry < 2**31 for entry in entries)
