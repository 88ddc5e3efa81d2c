"""Bits per dimension of a model on images."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import ModelMetric
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma.numerics.grids import MOST_STEPS
from trilemma_plugins.vdm.bound import bits_per_dimension
from trilemma_plugins.vdm.dequantization import DEQUANTIZATIONS
from trilemma_plugins.vdm.flow_likelihood import log_likelihood
from trilemma_plugins.vdm.latent_likelihood import latent_bound_terms, latent_flow_terms
from trilemma_plugins.vdm.likelihood_bound import bound_terms

Method = Literal["bound", "flow"]
Dequantization = Literal["noise", "uniform"]


@dataclass(frozen=True)
class BitsPerDimension(ModelMetric):
    """−log₂ P(x)/D of images on 256 grey levels, with the half-width of its 95 % interval over images and draws.

    bound: the variational bound, its prior, diffusion and reconstruction apart, in continuous time or of T steps.
    flow: the density p of the probability-flow equation, with Hutchinson's estimate of the trace, at a dequantized
    image, which makes it an upper bound in the mean:

        noise: y = x + (σ₀/α₀) ε, the noise that the process ends with, −log P ≤ E[log q(y|x) − log p(y) − log P(x|y)];
        uniform: y = x + u, u uniform over the width of a grey level, −log P ≤ E[−log p(y)] − D log(2/255).

    A network trained on grey levels alone concentrates its density in peaks around them, narrower than that width: use
    "noise" for it.

    Of a latent model whose autoencoder has a likelihood of grey levels both are of images, through its codes
    (`trilemma_plugins.vdm.latent_likelihood`); the flow is that of the codes, and dequantizes nothing.

    `estimate` in the record says which of the two was measured: "bound", the evidence lower bound (ELBO), or "flow".

    A model with a null class is measured with it, so that P is that of the image alone; one without with the labels.

    Args:
        method: "bound" or "flow".
        dequantization: "noise" or "uniform", of the flow.
        steps: T of the bound; None for continuous time, or all of the table the process lives on.
        first: t₀, at which the image is read off the state; by default the process's own end. Any t₀ gives a bound. A
            larger one gives a tighter bound where the network is poor at smaller times.
        draws: of time and noise an image, of the bound.
        tolerance: of the flow's integration.
        probes: Hutchinson's vectors an image, of the flow.

    Raises:
        UsageError: for an unknown method or a number that is not positive.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """

    method: Method = "bound"
    dequantization: Dequantization = "noise"
    steps: int | None = None
    first: float | None = None
    draws: int = 1
    tolerance: float = 1e-4
    probes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in ("bound", "flow"):
            raise UsageError(f"bpd: unknown method={self.method!r}; expected bound or flow")
        if self.dequantization not in DEQUANTIZATIONS:
            raise UsageError(
                f"bpd: unknown dequantization={self.dequantization!r}; expected noise or uniform"
            )
        if self.first is not None and not 0 < self.first < 1:
            raise UsageError(
                f"bpd: first={self.first!r} is no time between 0 and 1; give one, or leave it out"
            )
        for name in ("steps", "draws", "probes"):
            value = getattr(self, name)
            if value is not None:
                checked_integer(value, f"bpd: {name}", 1, MOST_STEPS)
        if not self.tolerance > 0:
            raise UsageError(f"bpd: tolerance={self.tolerance!r} is not positive; give a positive number")

    def measure(
        self, model: Denoiser, images: Tensor, labels: Tensor | None, batch_size: int, seed: int
    ) -> dict[str, float | str]:
        if model.process.components != 1 and (self.method == "flow" or self.steps is not None):
            raise UsageError(
                f"bpd: this process has {model.process.components} components, of which only the bound in continuous "
                "time is known; leave out method and steps"
            )
        if tuple(images.shape[1:]) != model.image_shape:
            raise UsageError(
                f"bpd: the images are {tuple(images.shape[1:])}, the model's {model.image_shape}; give its own data set"
            )
        if isinstance(model.view, Latent):
            self._check_latent(model.view.autoencoder)
        found: dict[str, list[Tensor]] = {}
        generator = torch.Generator().manual_seed(seed)
        like = next((p for p in model.own_tensors() if p.is_floating_point()), torch.zeros(()))
        # States near the data differ in digits that a half dtype does not have.
        if like.dtype in (
            torch.float16,
            torch.bfloat16,
        ):
            model, like = copy.deepcopy(model).float(), like.float()
        for entries in torch.arange(len(images)).split(batch_size):
            x = images[entries].to(like.device)
            cond = {k: v.to(x.device) for k, v in _conditions(model, labels, entries).items()}
            for name, nats in self._nats(model, x, cond, generator).items():
                found.setdefault(name, []).append(bits_per_dimension(nats.double().cpu(), x))
        terms = {name: torch.cat(parts) for name, parts in found.items()}
        total = sum(terms.values(), torch.zeros(len(images), dtype=torch.float64))
        if not total.isfinite().all():
            raise TrilemmaError("bpd: the model's answers are not finite; check its weights")
        error = float(total.std()) / math.sqrt(len(total)) if len(total) > 1 else math.nan
        parts = {name: float(term.mean()) for name, term in terms.items()} if len(terms) > 1 else {}
        return {
            "bpd": float(total.mean()),
            **parts,
            "interval": 1.96 * error,
            "images": float(len(total)),
            "estimate": self.method,
        }

    def _check_latent(self, coder: Autoencoder) -> None:
        if type(coder).log_likelihood is Autoencoder.log_likelihood:
            raise UsageError(
                f"bpd: the autoencoder {type(coder).__name__} of this model has no likelihood of pixels; give a model "
                "that was trained with one"
            )
        if self.method == "flow" and self.dequantization != "noise":
            raise UsageError("bpd: the flow of a latent model dequantizes nothing; leave out dequantization")

    def _nats(
        self, model: Denoiser, x: Tensor, cond: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        if isinstance(model.view, Latent):
            return self._latent_nats(model, model.view.autoencoder, x, cond, generator)
        if self.method == "flow":
            dequantize = DEQUANTIZATIONS[self.dequantization]
            points, beside = dequantize(model.process, x, generator, first=self.first)
            log_p, _ = log_likelihood(model, points, cond, generator, self.tolerance, self.probes, self.first)
            return {"flow": beside - log_p}
        draws = [bound_terms(model, x, cond, generator, self.steps, self.first) for _ in range(self.draws)]
        return _mean(draws)

    def _latent_nats(
        self,
        model: Denoiser,
        coder: Autoencoder,
        x: Tensor,
        cond: dict[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        if self.method == "flow":
            return latent_flow_terms(
                model, coder, x, cond, generator, self.tolerance, self.probes, self.first
            )
        return _mean(
            [
                latent_bound_terms(model, coder, x, cond, generator, self.steps, self.first)
                for _ in range(self.draws)
            ]
        )


def _mean(draws: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of terms over draws."""
    return {name: torch.stack([draw[name] for draw in draws]).mean(0) for name in draws[0]}


def _conditions(model: Denoiser, labels: Tensor | None, entries: Tensor) -> dict[str, Tensor]:
    given = {}
    if labels is not None:
        given = {
            name: labels[entries].tolist()
            for name, condition in model.conditions.items()
            if not condition.has_null
        }
    return model.prepare(given).take(torch.arange(len(entries)))
