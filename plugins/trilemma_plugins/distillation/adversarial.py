"""Adversarial distillation: the answers of a student are samples that a discriminator cannot tell from data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.adversarial import discriminator_loss, fooling_loss
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.feature_discriminator import FeatureDiscriminator
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.interfaces.update import MODEL, Loss, Step, Update
from trilemma.models.beside import denoiser_beside
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.distillation.reading import predicted_x0
from trilemma_plugins.distillation.steps import Scales, check_one_component

DISCRIMINATOR = "discriminator"
STUDENT = "student"


@dataclass(frozen=True)
class Adversarial(Objective):
    """softplus(−D(α_τ x̂₀ + σ_τ ξ, τ)), x̂₀ the student's answer at z_t ~ q(z_t | x₀), t one of the times of N steps.

    D, which learns in an update of its own, tells noised answers from noised data, α_τ x₀ + σ_τ ξ, at log-SNRs of τ
    drawn uniformly from `levels`: low ones show it the form, high ones the detail. It sees through the features of the
    trained denoiser `judge`. At t of pure noise the student is a generator of one step; with the sampler `lcm`, whose
    steps noise each answer afresh, it is one of N steps, and each corrects the one before.

    A student must begin with answers that differ from noise to noise, as those of the shortest student of
    `progressive` do: those of an ordinary denoiser at pure noise are one mean.

    Args:
        judge: a trained denoiser, by name or directory.
        layers: names of the judge's modules whose outputs are the features.
        steps: N.
        grid: of the times.
        levels: the lowest and the highest log(α²/σ²) at which answers are judged.
        first: share of the examples at the first time of the grid; the other times have equal shares.
        gamma: γ of the penalty R1, (γ/2) ‖∇D‖² of noised data, added in every 16th step, times 16.
        since: the first step in which the student learns; the discriminator learns from the beginning.
        width: channels of the discriminator's heads.
        drop: probability of replacing the conditions of an example by the null ones, for both networks.

    Raises:
        UsageError: for an option out of range, a process of several components, or a parameterization that does not
            give x₀ at one of the times.

    References:
        Sauer et al., Adversarial Diffusion Distillation, arXiv:2311.17042; Sauer et al., Fast High-Resolution Image
        Synthesis with Latent Adversarial Diffusion Distillation, arXiv:2403.12015.
    """

    judge: str
    layers: tuple[str, ...]
    steps: int = 1
    grid: Grid = "trailing"
    levels: tuple[float, float] = (-1.0, 5.0)
    first: float | None = None
    gamma: float = 0.0
    since: int = 0
    width: int = 64
    drop: float | dict[str, float] = 0.0

    lazy = 16

    def __post_init__(self) -> None:
        checked_integer(self.steps, "adversarial: steps", 1, what="is no number of steps")
        checked_integer(self.since, "adversarial: since", 0, what="is no step")
        checked_integer(self.width, "adversarial: width", 1, what="is no number of channels")
        check_drop("adversarial", self.drop)
        low, high = self.levels
        if not -math.inf < low <= high < math.inf:
            raise UsageError(
                f"adversarial: levels={list(self.levels)} is no range of log-SNRs; give [low, high], such as [-1, 5]"
            )
        if self.first is not None and not 0 <= self.first <= 1:
            raise UsageError(f"adversarial: first={self.first!r} is no share; give a number from 0 to 1")
        if not 0 <= self.gamma < math.inf:
            raise UsageError(
                f"adversarial: gamma={self.gamma!r} is out of range; give a number from 0, such as 0.02"
            )

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        if not isinstance(model, Denoiser):
            raise UsageError(f"a {type(model).__name__} is no denoiser; distil a denoiser")
        check_one_component(model.process)
        seen = denoiser_beside(model, self.judge, "judge")
        return {DISCRIMINATOR: FeatureDiscriminator(seen, self.layers, width=self.width)}

    def updates(self) -> tuple[Update, ...]:
        return (Update(DISCRIMINATOR, (DISCRIMINATOR,)), Update(STUDENT, (MODEL,), since=self.since))

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of the discriminator or of the student, each on examples and levels of its own."""
        student, process, x0 = step.denoiser, step.denoiser.process, step.x0
        t = self.draw_times(student, len(x0), step.generator)
        cond = drop_conditions(student, step.cond, self.drop, step.generator)
        z = process.perturb(x0, t, standard_normals(x0, step.generator))
        low, high = self.levels
        # Independent of the times, which are evenly spaced over the batch.
        u = uniform_draws(len(x0), step.generator, stratified=False)
        judged = process.time_of_log_snr(low + (high - low) * u)
        at_judged = Scales.at(process, judged)

        def noised(images: Tensor) -> Tensor:
            return at_judged.state(images, standard_normals(images, step.generator))

        def logits(state: Tensor) -> Tensor:
            found: Tensor = step.parts[DISCRIMINATOR]((state,), (judged,), cond)
            return found

        def answer() -> Tensor:
            return predicted_x0(step.network, student, z, t, Scales.at(process, t), cond)

        if update.name == STUDENT:
            return fooling_loss(logits(noised(answer())))
        with torch.no_grad():
            drawn = noised(answer())
        # Of the same examples, so that both have the same conditions.
        return discriminator_loss(
            logits, noised(x0), drawn, gamma=self.gamma, lazy=self.lazy, number=step.number
        )

    def draw_times(self, model: Denoiser, batch: int, generator: torch.Generator) -> Tensor:
        """Returns times t [B] of the grid, float64."""
        times = spaced_times(model.process, self.steps, self.grid)
        first = 1 / self.steps if self.first is None or self.steps == 1 else self.first
        u = uniform_draws(batch, generator)
        later = 1 + ((u - first) / max(1 - first, 1e-9) * (self.steps - 1)).floor().long()
        return times[torch.where(u < first, 0, later).clamp(0, self.steps - 1)]
