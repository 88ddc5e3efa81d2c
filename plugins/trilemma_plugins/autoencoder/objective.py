"""The losses of autoencoders: reconstruction, the divergence of the codes, and what a discriminator says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.feature_distance import FeatureDistance
from trilemma.interfaces.features import Features
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import MODEL, Loss, Step, Update
from trilemma.models.loading import load_of
from trilemma.numerics.draws import standard_normals
from trilemma_plugins.autoencoder.discriminator import PatchDiscriminator

DISCRIMINATOR, FEATURES = "discriminator", "features"
Error = Literal["squared", "absolute"]
# Bounds of the ratio of gradients: its denominator from below, itself from above.
SMALLEST, LARGEST = 1e-4, 1e4


@dataclass(frozen=True)
class Autoencoding(Objective):
    """The error of a decoded sample of the code, the divergence of the code, and two further terms:

        x̂ = decode(mean + e^{l/2} ξ),    R = |x − x̂| or (x − x̂)², a mean over pixels, + `perceptual` · d(x, x̂)
        L = R + `kl` · KL + `adversarial` · λ · G,    KL = ½ (mean² + e^l − 1 − l), a mean over the numbers of a code
        G = −E D(x̂),    L_D = ½ E max(0, 1 − D(x)) + ½ E max(0, 1 + D(x̂)),    λ = ‖∇_w R‖ / ‖∇_w G‖

    with l the log-variance, d the distance in the features of a network, D a discriminator of patches, and w the weight
    of the decoder's last layer. All are means, so that no weight changes with the size of images or codes; the
    published KL is a sum over a code beside a mean over pixels. The codes' statistics are taken in float32. The
    statistics by which codes are normalised are those of the whole training set, and part of the weights.

    Args:
        kl: weight of the divergence.
        error: "squared" or "absolute".
        features: a feature network for d, by name or folder; "" for none.
        perceptual: weight of d.
        adversarial: weight of the discriminator's term; 0 for no discriminator.
        start: step from which the discriminator learns and is heard, when the reconstruction no longer improves.
        width: of the discriminator's first layer.

    Raises:
        UsageError: for a weight or a number out of range; in training, for a model that is no autoencoder, a feature
            network that does not take its images, or a discriminator beside a model that names no last layer.

    References:
        Kingma & Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114; Rombach et al., High-Resolution Image
        Synthesis with Latent Diffusion Models, arXiv:2112.10752; Esser et al., Taming Transformers for High-Resolution
        Image Synthesis, arXiv:2012.09841 (λ).
    """

    kl: float = 1e-3
    error: Error = "squared"
    features: str = ""
    perceptual: float = 0.1
    adversarial: float = 0.0
    start: int = 1
    width: int = 32

    def __post_init__(self) -> None:
        for name in ("kl", "perceptual", "adversarial"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"autoencoding: {name}={value!r} is negative or no number; give one from 0")
        if self.error not in ("squared", "absolute"):
            raise UsageError(f"autoencoding: unknown error={self.error!r}; expected squared or absolute")
        # In a trial and in a validation the number of a step is 0, and the discriminator is not heard.
        checked_integer(self.start, "autoencoding: start", 1, what="is no step")
        checked_integer(self.width, "autoencoding: width", 1, what="is no number of channels")

    @property
    def frozen(self) -> tuple[str, ...]:  # type: ignore[override]
        """The feature network, where there is one."""
        return (FEATURES,) if self.features else ()

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        coder, found = _autoencoder(model), dict[str, nn.Module]()
        if self.features:
            network = load_of(Features, self.features)  # type: ignore[type-abstract]
            if not network.takes(coder.shape):
                raise UsageError(
                    f"autoencoding: {network.name} takes no images of {coder.shape}; give features that do"
                )
            found[FEATURES] = FeatureDistance(network)
        if self.adversarial:
            if coder.last_weight is None:
                raise UsageError(
                    f"autoencoding: {type(coder).__name__} names no last_weight, by which adversarial= is weighed; "
                    "set adversarial=0"
                )
            found[DISCRIMINATOR] = PatchDiscriminator(coder.shape, self.width)
        return found

    def updates(self) -> tuple[Update, ...]:
        discriminator = Update(DISCRIMINATOR, (DISCRIMINATOR,), since=self.start)
        return (Update(MODEL), discriminator) if self.adversarial else (Update(MODEL),)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of the model or of the discriminator, and its terms for the log."""
        coder = _autoencoder(step.model)
        if update.name == DISCRIMINATOR:
            with torch.no_grad():
                drawn, *_ = _drawn(coder, step)
            return _hinge(step.parts[DISCRIMINATOR], step.x0, drawn)
        drawn, mean, log_variance = _drawn(coder, step)
        difference = drawn - step.x0
        error = (difference.abs() if self.error == "absolute" else difference.square()).mean()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        terms = {"reconstruction": error, "kl": divergence}
        if self.features:
            terms["features"] = step.parts[FEATURES](step.x0, drawn).mean()
            error = error + self.perceptual * terms["features"]
        loss = error + self.kl * divergence
        if not self.adversarial or step.number < self.start:
            return loss, terms
        deceit = -step.parts[DISCRIMINATOR](drawn).float().mean()
        weight = _ratio(error, deceit, cast(Tensor, coder.last_weight))
        return loss + self.adversarial * weight * deceit, {**terms, "deceit": deceit, "weight": weight}

    def finish(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Sets the statistics of the codes to those of the training set."""
        _autoencoder(model).normalise_over(batches)


def _drawn(coder: Autoencoder, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """The images of sampled codes, and mean and log-variance of the codes, in float32."""
    encoded = coder.encode(step.x0)
    mean, log_variance = (part.float() for part in encoded)
    code = mean + (log_variance / 2).exp() * standard_normals(mean, step.generator)
    return coder.decode(code.to(encoded[0].dtype)).float(), mean, log_variance


def _hinge(judge: nn.Module, real: Tensor, drawn: Tensor) -> Loss:
    """L_D, and the gap of the outputs."""
    true, false = judge(real).float(), judge(drawn).float()
    loss = (relu(1 - true).mean() + relu(1 + false).mean()) / 2
    return loss, {"gap": (true.mean() - false.mean()).detach()}


def _ratio(error: Tensor, deceit: Tensor, weight: Tensor) -> Tensor:
    """λ, without a gradient."""
    first, second = (
        torch.autograd.grad(loss, weight, retain_graph=True)[0].float().norm() for loss in (error, deceit)
    )
    return (first / second.clamp_min(SMALLEST)).clamp_max(LARGEST).detach()


def _autoencoder(model: nn.Module) -> Autoencoder:
    if not isinstance(model, Autoencoder):
        raise UsageError(
            f"autoencoding: a {type(model).__name__} has no codes; train a model of the kind autoencoder"
        )
    return model
