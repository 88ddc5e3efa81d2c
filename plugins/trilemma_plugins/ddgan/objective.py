"""Denoising diffusion GANs: few, large denoising steps, each of which a generator samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.adversarial import discriminator_loss, fooling_loss
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.feature_discriminator import FeatureDiscriminator
from trilemma.interfaces.objective import Objective, check_drop, drawn_by_network, drop_conditions
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.interfaces.update import MODEL, Loss, Step, Update
from trilemma.models.beside import denoiser_beside
from trilemma.numerics.broadcasting import column
from trilemma.numerics.conversion import convert
from trilemma.numerics.draws import standard_normals
from trilemma_plugins.ddgan.discriminator import Discriminator
from trilemma_plugins.ddgan.posterior import earlier, later, pair

DISCRIMINATOR = "discriminator"
GENERATOR = "generator"
# The others say nothing about x₀ where no data are left.
ANSWERS = ("x0", "v", "flow")


@dataclass(frozen=True)
class DenoisingGAN(Objective):
    """A generator x̂₀ = G(z_t, t, ξ) whose steps z_s ~ q(z_s | z_t, x̂₀) a discriminator cannot tell from q(z_s | z_t).

    On a grid of a few times, t and s its neighbours, x₀ from the data, z_s ~ q(z_s | x₀) and z_t ~ q(z_t | z_s):

        L_D = softplus(−D(z_s, z_t, t)) + softplus(D(z'_s, z_t, t)) + (γ/2) ‖∇_{z_s} D(z_s, z_t, t)‖²,
        L_G = softplus(−D(z'_s, z_t, t)).

    The penalty R1 is added in every `lazy`-th step, times `lazy`. Both networks are told the time t of the later state.
    The generator is a denoiser that draws ξ for itself; one that draws nothing answers with a single x̂₀ a state, and
    its steps are no more than Gaussian. From an answer in v or flow x̂₀ is formed, and near the data it begins as z_t,
    which a network of x₀ has to learn. Samples are drawn on the same grid by the posterior's steps, `ddim:eta=1`.

    Args:
        steps: number of times of the grid; 0 for the whole table of the process.
        grid: of the times.
        gamma: γ of R1.
        lazy: steps from one penalty to the next.
        width: of the discriminator's first block, or of the heads on features.
        judge: a trained denoiser, by name or directory, through whose features the discriminator sees both states;
            "" for a discriminator that begins with nothing, which needs many more steps on images.
        layers: names of the judge's modules whose outputs are the features.
        finest: the highest log(α²/σ²) of a state z_s that the judge is shown; a cleaner one is noised to it before. A
            denoiser near the data sees nothing but the faintest noise, by which no generator is to be known.
        since: the first step in which the generator learns; the discriminator learns from the beginning.
        every: steps from one update of the generator to the next; the discriminator learns in each.
        drop: probability of replacing the conditions of an example by the null ones, for both networks.

    Raises:
        UsageError: for an option out of range, a process in continuous time without `steps`, a process of several
            components, or a generator of another parameterization than x0, v or flow.

    References:
        Xiao et al., Tackling the Generative Learning Trilemma with Denoising Diffusion GANs, arXiv:2112.07804;
        Mescheder et al., Which Training Methods for GANs do actually Converge?, arXiv:1801.04406 (R1);
        Sauer et al., arXiv:2403.12015 (a discriminator on features of a denoiser).
    """

    steps: int = 0
    grid: Grid = "trailing"
    gamma: float = 0.02
    lazy: int = 15
    width: int = 32
    judge: str = ""
    layers: tuple[str, ...] = ()
    finest: float = 5.0
    since: int = 0
    every: int = 1
    drop: float | dict[str, float] = 0.0

    def __post_init__(self) -> None:
        checked_integer(self.steps, "ddgan: steps", 0, what="is no number of steps")
        checked_integer(self.lazy, "ddgan: lazy", 1, what="is no number of steps")
        checked_integer(self.width, "ddgan: width", 1, what="is no number of channels")
        checked_integer(self.since, "ddgan: since", 0, what="is no step")
        checked_integer(self.every, "ddgan: every", 1, what="is no number of steps")
        check_drop("ddgan", self.drop)
        if not math.isfinite(self.finest):
            raise UsageError(f"ddgan: finest={self.finest!r} is no log-SNR; give a number, such as 5")
        if not 0 <= self.gamma < math.inf:
            raise UsageError(
                f"ddgan: gamma={self.gamma!r} is out of range; give a number from 0, such as 0.02"
            )

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        if not isinstance(model, Denoiser) or model.parameterization not in ANSWERS:
            raise UsageError('ddgan trains a denoiser of x0, v or flow; set denoiser.parameterization = "x0"')
        if model.process.components != 1 or not (self.steps or model.process.table):
            raise UsageError(
                "ddgan runs on a few steps of a process of one component; set steps, or a table such as "
                "vp:schedule=few,T=4"
            )
        if not self.judge:
            return {DISCRIMINATOR: Discriminator(model.shape, tuple(model.conditions.values()), self.width)}
        seen = denoiser_beside(model, self.judge, "judge")
        return {DISCRIMINATOR: FeatureDiscriminator(seen, self.layers, states=2, width=self.width)}

    def updates(self) -> tuple[Update, ...]:
        of_generator = Update(GENERATOR, (MODEL,), every=self.every, since=self.since)
        return (Update(DISCRIMINATOR, (DISCRIMINATOR,)), of_generator)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of the discriminator or of the generator, each on pairs of its own."""
        judge, process = step.parts[DISCRIMINATOR], step.denoiser.process
        s, t = self.draw_times(step.denoiser, len(step.x0), step.generator)
        cond = drop_conditions(step.denoiser, step.cond, self.drop, step.generator)
        noise = standard_normals(step.x0, step.generator), standard_normals(step.x0, step.generator)
        z_s, z_t = pair(process, step.x0, s, t, noise)
        told_t = t.to(z_t.device, time_dtype(z_t.dtype))
        shown = (
            s.maximum(process.time_of_log_snr(torch.tensor(self.finest, dtype=s.dtype))) if self.judge else s
        )
        told = shown.to(told_t), told_t

        def logits(state: Tensor) -> Tensor:
            if self.judge:
                state = later(process, state, s, shown, standard_normals(state, step.generator))
            found: Tensor = judge((state, z_t), told, cond)
            return found

        if update.name == GENERATOR:
            return fooling_loss(logits(self._drawn(step, z_t, s, t, told_t, cond)))
        with torch.no_grad():
            drawn = self._drawn(step, z_t, s, t, told_t, cond)
        return discriminator_loss(logits, z_s, drawn, gamma=self.gamma, lazy=self.lazy, number=step.number)

    def draw_times(self, model: Denoiser, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns neighbours s < t [B] of the grid, float64, each pair as likely as any other."""
        steps = self.steps or model.process.table
        assert steps is not None
        times = spaced_times(model.process, steps, self.grid)
        i = torch.randint(steps, (batch,), generator=generator)
        return times[i + 1], times[i]

    def _drawn(
        self, step: Step, z_t: Tensor, s: Tensor, t: Tensor, told: Tensor, cond: Mapping[str, Tensor]
    ) -> Tensor:
        """z'_s [B, ...], from the generator's answer and the posterior."""
        own = drawn_by_network(step.denoiser, z_t, step.generator)
        answer = step.network(z_t, told, **cond, **own).to(z_t.dtype)
        process, parameterization = step.denoiser.process, step.denoiser.parameterization
        of_state, of_answer = convert(parameterization, "x0", *process.alpha_sigma(t))
        x0 = column(of_state, z_t) * z_t + column(of_answer, z_t) * answer
        return earlier(process, z_t, x0, s, t, standard_normals(z_t, step.generator))
