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
from trilemma.interfaces.guidance import BoundGuidance, Branch, Guidance
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
        UsageError: for a scale that is not finite, or an invalid label.

    References:
        Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis, arXiv:2105.05233.
    """

    model: nn.Module | str | Path = "mnist"
    scale: float = 1.0
    label: int | Sequence[int] | None = None

    neutral_scale = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label is not None and not _are_labels(self.label):
            raise UsageError(
                f"classifier: label={self.label!r} is no class; give an integer or a list of them"
            )

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if model.process.components != 1:
            raise UsageError("classifier guides processes of one component; this one has more")
        wanted = _wanted(cond)
        if self.label is None and len(wanted) != 1:
            raise UsageError("classifier needs a class to guide to; give label=7, or one condition in cond")
        name = None if self.label is not None else next(iter(wanted))
        if name is not None and name not in model.conditions:
            raise UsageError(
                f"classifier needs a class to guide to, and the model takes no condition {name!r}; give label=7"
            )
        device = next((entry.device for entry in model.parameters()), torch.device("cpu"))
        classifier = self._classifier(model, device)
        return ByGradient(Branch(dict(cond), model), classifier, self.scale, self.label, name)

    def _classifier(self, model: Denoiser, device: torch.device) -> nn.Module:
        """The classifier, which fits the model; one that is given by name is loaded once a device."""
        given = self.model
        classifier = given if isinstance(given, nn.Module) else load_classifier(given, str(device))
        shape = getattr(classifier, "shape", model.shape)
        if tuple(shape) != model.shape:
            raise UsageError(
                f"the classifier is for states of shape {tuple(shape)}, not of {model.shape}; give another as model="
            )
        random = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
        if any(module.training and isinstance(module, random) for module in classifier.modules()):
            raise UsageError("the classifier is in training mode; call classifier.eval() first")
        if any(entry.device != device for entry in classifier.parameters()):
            raise UsageError(f"the classifier is not on {device} like the model; move it there")
        return classifier


class ByGradient(BoundGuidance):
    """ε̂ − s σ_t ∇_z log p(y | z_t, t) of a model.

    Args:
        branch: the evaluation that is guided.
        classifier: gives the logits of p.
        scale: s.
        label: y, one or a list of which sample i takes entry i modulo its length; None for that of a condition.
        condition: the name of the condition whose labels are y, where `label` says none.
    """

    linear = False
    uncapturable = "the gradient of a classifier is taken on the host"

    def __init__(
        self, branch: Branch, classifier: nn.Module, scale: float, label: Any, condition: str | None
    ) -> None:
        self.branches = (branch,)
        self.classifier, self.scale, self._condition = classifier, scale, condition
        self._wanted = torch.as_tensor(-1 if label is None else label, dtype=torch.int64).reshape(-1)

    def targets(self, indices: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._condition is not None:
            return {_LABELS: cond[self._condition]}
        return {_LABELS: self._wanted[indices.cpu() % len(self._wanted)].to(indices.device)}

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        if self.scale == 0:
            return predictions[0]
        process, time = self.model.process, torch.tensor(t, dtype=torch.float64)
        alpha, sigma = process.alpha(time), process.sigma(time)
        _, q = convert("eps", self.model.parameterization, alpha, sigma)
        # A shift of ε̂ by δ at the same z shifts any other parameterization by q·δ.
        return predictions[0] - (self.scale * sigma * q).item() * self.gradient(z, t, targets[_LABELS])

    def gradient(self, z: Tensor, t: float, labels: Tensor) -> Tensor:
        """Returns ∇_z log p(y | z, t) [B, ...], in the classifier's dtype and back in that of z."""
        wanted = next((entry.dtype for entry in self.classifier.parameters()), z.dtype)
        # Tensors made in inference mode never take part in autograd; copies made outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            state = z.detach().clone().to(wanted).requires_grad_()
            times = torch.full((len(z),), t, dtype=time_dtype(wanted), device=z.device)
            logits = self.classifier(state, times)
            chosen = log_softmax(logits, 1).gather(1, labels.clone()[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), state)
        return gradient.to(z.dtype)


def _wanted(cond: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cond.items() if value is not None}


def _are_labels(value: Any) -> bool:
    entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return bool(entries) and all(type(entry) is int and 0 <= entry < 2**31 for entry in entries)
