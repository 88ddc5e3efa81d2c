"""The bound of log p(x) of an autoencoder and the score prior of its codes, trained together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.data_view import autoencoder_of
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.process import Process
from trilemma.interfaces.update import MODEL, Loss, Step, Update
from trilemma.numerics.broadcasting import column
from trilemma.numerics.conversion import noise_error
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.lsgm.cross_entropy import cross_entropy, entropy, last_divergence
from trilemma_plugins.lsgm.denoiser import MixedScoreDenoiser
from trilemma_plugins.lsgm.importance_sampling import WEIGHTINGS, ImportanceSampling, Weighting
from trilemma_plugins.lsgm.spectral import SpectralNorms

AUTOENCODER, PRIOR, SPECTRUM = "autoencoder", "prior", "spectrum"


@dataclass(frozen=True)
class LatentScoreModel(Objective):
    """Bits per dimension of the bound of −log p(x): reconstruction, and k times the divergence from the score prior.

        E_q[−log p(x | z₀)] + k (CE(q(z_ε|x), p) − H),     z₀ ~ q(z₀|x) the autoencoder's codes,

    with CE and H of `trilemma_plugins.lsgm.cross_entropy`. In one backward pass encoder and decoder descend on it, and
    the denoiser on w ‖ε − ε̂‖² of a weighting of its own, at times drawn for that: the encoder always has the weight of
    the likelihood. k rises from `start` to `kl` over the first `anneal` steps, in which the codes get their meaning
    before they are pressed together. A validation has k = kl.

    All terms are sums over a code and over an image, divided by the numbers of an image and ln 2. Neither the size of
    the codes nor that of the images asks for another k.

    Args:
        weighting: of the denoiser: "ll" is the likelihood's, "drop-sigma2" and "unweighted" care for images.
        kl: k at the end; 1 is the bound.
        anneal: steps in which it rises.
        start: k at the start.
        spectral: weight, in nats an image, of the sum of the largest singular values of all layers; 0 for none.
        separate: two updates, `autoencoder` and `prior`, each with an optimizer and times of its own, in place of one.
            It takes twice the time, and the encoder's times are those of the likelihood, too, whose estimate has less
            variance.
        first: t_ε; by default 0 where the process has noise at t = 0, else 0.01.
        stratified: low-discrepancy times.
        drop: probability of replacing the conditions of an example by the null ones (2207.12598).

    Raises:
        UsageError: for an unknown weighting or a number out of range; in training, for a model that is not latent, an
            autoencoder without a likelihood, or a process that does not preserve variance.

    References:
        Vahdat et al., Score-based Generative Modeling in Latent Space, arXiv:2106.05931.
    """

    weighting: Weighting = "ll"
    kl: float = 1.0
    anneal: int = 2000
    start: float = 1e-3
    spectral: float = 1e-2
    separate: bool = False
    first: float | None = None
    stratified: bool = True
    drop: float | dict[str, float] = 0.0

    averaged = (MODEL, AUTOENCODER)

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise UsageError(
                f"lsgm: unknown weighting={self.weighting!r}; expected one of {', '.join(WEIGHTINGS)}"
            )
        checked_integer(self.anneal, "lsgm: anneal", 0, what="is no number of steps")
        for name in ("kl", "start", "spectral"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"lsgm: {name}={value!r} is no weight; give a number from 0")
        check_drop("lsgm", self.drop)

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        coder = autoencoder_of(model)
        assert isinstance(model, Denoiser)
        self.times(model.process)
        if type(coder).log_likelihood is Autoencoder.log_likelihood:
            raise UsageError(
                f'lsgm: {type(coder).__name__} has no likelihood p(x | code); set latent.spec = "grey-levels" and name '
                "it as latent.options.network"
            )
        coder.requires_grad_(True)
        spectrum = {SPECTRUM: SpectralNorms((model, coder))} if self.spectral else {}
        return {AUTOENCODER: coder, **spectrum}

    def updates(self) -> tuple[Update, ...]:
        if not self.separate:
            return (Update(MODEL, (MODEL, AUTOENCODER)),)
        return Update(AUTOENCODER, (AUTOENCODER,)), Update(PRIOR, (MODEL,))

    def bounds(self) -> Mapping[str, float]:
        """Returns a bound of the loss that no run of use is near: its mean is not finite where one has diverged."""
        return {f"{AUTOENCODER}_loss" if self.separate else "loss": 1e4}

    def times(self, process: Process) -> ImportanceSampling:
        """Returns the times and weights of a process."""
        return ImportanceSampling(process, self.first)

    def kl_weight(self, number: int) -> float:
        """Returns k after `number` steps: linear from `start` to `kl`."""
        return (
            self.kl if number >= self.anneal else self.start + (self.kl - self.start) * number / self.anneal
        )

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss in bits per dimension, and its terms for the log.

        Its value is the bound with k = kl, or the denoiser's own loss where it has an update of its own. Its gradients
        are those of the annealed bound and of the weighted error.
        """
        coder, x = step.parts[AUTOENCODER], step.x0
        assert isinstance(coder, Autoencoder)
        times = self.times(step.denoiser.process)
        with torch.set_grad_enabled(torch.is_grad_enabled() and update.name != PRIOR):
            mean, log_variance = (_wide(entry) for entry in coder.posterior(x))
            code = mean + (log_variance / 2).exp() * standard_normals(mean, step.generator)
        u = uniform_draws(len(x), step.generator, self.stratified)
        drawn = times.draw("ll" if update.name == AUTOENCODER else self.weighting, u)
        k = self.kl_weight(step.number)
        # The network's gradient has the weight of the denoiser, what passes through it to the codes the encoder's.
        share = k * drawn.likelihood / drawn.weight
        error = self._error(step, _with_gradient(code, column(share, code)), drawn.t)
        weighted, spectrum = drawn.weight.to(error) * error, self._spectrum(step)
        if update.name == PRIOR:
            return _bits(weighted, x).mean() + spectrum
        low, high = times.ends
        first = code + float((low / (1 - low)).sqrt()) * standard_normals(code, step.generator)
        reconstruction = -_wide(coder.log_likelihood(x, coder.own_code(first)))
        beside = last_divergence(code, high) - entropy(log_variance, low)
        descended = _bits(reconstruction + k * beside + weighted, x).mean() + spectrum
        likelihood = drawn.likelihood.to(error) * error.detach()
        divergence = cross_entropy(likelihood, low, code[0].numel()) + beside.detach()
        told = {
            "reconstruction": _bits(reconstruction.detach(), x).mean(),
            "divergence": _bits(divergence, x).mean(),
        }
        loss = told["reconstruction"] + self.kl * told["divergence"] + spectrum.detach()
        return loss + descended - descended.detach(), {**told, "share": _mean_share(step.model)}

    def _error(self, step: Step, code: Tensor, t: Tensor) -> Tensor:
        """‖ε − ε̂(z_t, t)‖² [B] of codes [B, ...] at times t [B]."""
        process, noise = step.denoiser.process, standard_normals(code, step.generator)
        alpha, sigma = process.scales(t, code)
        cond = drop_conditions(step.denoiser, step.cond, self.drop, step.generator)
        z = alpha * code + sigma * noise
        answer = step.network(z, t.to(z.device, time_dtype(z.dtype)), **cond).to(z.dtype)
        return noise_error(answer, step.denoiser.parameterization, code, noise, alpha, sigma)

    def _spectrum(self, step: Step) -> Tensor:
        """The regulariser, in bits per dimension."""
        if not self.spectral:
            return step.x0.new_zeros(())
        norms = step.parts[SPECTRUM]((step.model, step.parts[AUTOENCODER]))
        return _bits(self.spectral * norms, step.x0)


def _wide(value: Tensor) -> Tensor:
    """A value of a network in float32 at least."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _bits(nats: Tensor, x: Tensor) -> Tensor:
    """Nats of an image x[0] in bits per dimension."""
    return nats / (x[0].numel() * math.log(2))


def _with_gradient(value: Tensor, factor: Tensor) -> Tensor:
    """`value`, its gradient multiplied by `factor`."""
    fixed = value.detach()
    return fixed + factor * (value - fixed)


def _mean_share(model: nn.Module) -> float | Tensor:
    """The share of the network in the mixed score, mean over channels; 1 of a denoiser that mixes nothing."""
    return model.share.detach().mean() if isinstance(model, MixedScoreDenoiser) else 1.0
