"""Adversarial distillation: a discriminator cannot tell the samples of a student from data."""

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
from trilemma.interfaces.objective import Objective, check_drop, drawn_by_network, drop_conditions
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.interfaces.update import MODEL, Loss, Step, Update
from trilemma.models.beside import denoiser_beside
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.distillation.reading import predicted_x0
from trilemma_plugins.distillation.steps import Scales, check_one_component, ddim_step, flow_step
from trilemma_plugins.distillation.teacher import TEACHER, teacher_of

DISCRIMINATOR = "discriminator"
STUDENT = "student"


@dataclass(frozen=True)
class Adversarial(Objective):
    """softplus(−D(α_τ x̂ + σ_τ ξ, τ)), x̂ the image that the student draws in N steps of DDIM from pure noise.

    The gradient goes through all N steps. D, which learns in an update of its own, tells noised images of the student
    from noised data, α_τ x₀ + σ_τ ξ, at log-SNRs of τ drawn uniformly from `levels`: low ones show it the form, high
    ones the detail. It sees through the features of the trained denoiser `judge`, of which the last, made where it
    removes the noise, tell most. Whole samples are compared, and so what the steps lose together is learned together.

    With `pull`, the student's loss has pull · E (x̂ − x̂')² too, a mean over all elements, x̂' the image that a `teacher`
    draws from the same noise in steps of its own: it keeps modes that the discriminator alone lets go.

    A student must begin with samples that differ from noise to noise, as those of `progressive` do: an ordinary
    denoiser answers pure noise with one mean. It may draw noise for itself, as the generators of `ddgan` do.

    Args:
        judge: a trained denoiser, by name or directory.
        layers: names of the judge's modules whose outputs are the features.
        steps: N.
        grid: of the times.
        eta: η of the steps, 0 for those of the flow, 1 for those of the posterior.
        levels: the lowest and the highest log(α²/σ²) at which images are judged.
        gamma: γ of the penalty R1, (γ/2) ‖∇D‖² of noised data, added in every 16th step, times 16.
        since: the first step in which the student learns; the discriminator learns from the beginning.
        every: steps from one update of the student to the next; the discriminator learns in each.
        width: channels of the discriminator's heads.
        teacher: a trained denoiser for `pull`, by name or directory.
        teacher_steps: its steps of DDIM.
        pull: weight of its images.
        drop: probability of replacing the conditions of an example by the null ones, for both networks.

    Raises:
        UsageError: for an option out of range, a process of several components, a parameterization that does not give
            x₀ at one of the times, or a teacher beside η > 0, whose noise it would not share.

    References:
        Sauer et al., Adversarial Diffusion Distillation, arXiv:2311.17042; Sauer et al., Fast High-Resolution Image
        Synthesis with Latent Adversarial Diffusion Distillation, arXiv:2403.12015; Yin et al., One-step Diffusion with
        Distribution Matching Distillation, arXiv:2311.18828 (a teacher's images beside a loss of distributions).
    """

    judge: str = ""
    layers: tuple[str, ...] = ()
    steps: int = 1
    grid: Grid = "trailing"
    eta: float = 0.0
    levels: tuple[float, float] = (-1.0, 5.0)
    gamma: float = 0.0
    since: int = 0
    every: int = 1
    width: int = 64
    teacher: str = ""
    teacher_steps: int = 4
    pull: float = 0.0
    drop: float | dict[str, float] = 0.0

    lazy = 16

    def __post_init__(self) -> None:
        checked_integer(self.steps, "adversarial: steps", 1, what="is no number of steps")
        checked_integer(self.since, "adversarial: since", 0, what="is no step")
        checked_integer(self.every, "adversarial: every", 1, what="is no number of steps")
        checked_integer(self.width, "adversarial: width", 1, what="is no number of channels")
        checked_integer(self.teacher_steps, "adversarial: teacher_steps", 1, what="is no number of steps")
        check_drop("adversarial", self.drop)
        if not 0 <= self.eta <= 1:
            raise UsageError(f"adversarial: eta={self.eta!r} is out of range; give a number from 0 to 1")
        low, high = self.levels
        if not -math.inf < low <= high < math.inf:
            raise UsageError(
                f"adversarial: levels={list(self.levels)} is no range of log-SNRs; give [low, high], such as [-1, 5]"
            )
        for name, value in (("gamma", self.gamma), ("pull", self.pull)):
            if not 0 <= value < math.inf:
                raise UsageError(
                    f"adversarial: {name}={value!r} is out of range; give a number from 0, such as 0.02"
                )
        if bool(self.teacher) != (self.pull > 0) or (self.teacher and self.eta):
            raise UsageError(
                "adversarial: a teacher needs pull above 0 and eta=0, and pull a teacher; give both, as "
                "teacher=NAME,pull=4, or neither"
            )

    @property
    def frozen(self) -> tuple[str, ...]:  # type: ignore[override]
        return (TEACHER,) if self.teacher else ()

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        if not isinstance(model, Denoiser):
            raise UsageError(f"a {type(model).__name__} is no denoiser; distil a denoiser")
        check_one_component(model.process)
        if not self.judge:
            raise UsageError(
                "adversarial: no denoiser is the judge; give one, as adversarial:judge=NAME,layers=[...]"
            )
        seen = denoiser_beside(model, self.judge, "judge")
        parts: dict[str, nn.Module] = {
            DISCRIMINATOR: FeatureDiscriminator(seen, self.layers, width=self.width)
        }
        return parts | ({TEACHER: teacher_of(model, self.teacher)} if self.teacher else {})

    def updates(self) -> tuple[Update, ...]:
        of_student = Update(STUDENT, (MODEL,), every=self.every, since=self.since)
        return (Update(DISCRIMINATOR, (DISCRIMINATOR,)), of_student)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss of the discriminator or of the student, each on samples and levels of its own."""
        process, x0 = step.denoiser.process, step.x0
        cond = drop_conditions(step.denoiser, step.cond, self.drop, step.generator)
        low, high = self.levels
        judged = process.time_of_log_snr(low + (high - low) * uniform_draws(len(x0), step.generator))
        at_judged = Scales.at(process, judged)

        def noised(images: Tensor) -> Tensor:
            return at_judged.state(images, standard_normals(images, step.generator))

        def logits(state: Tensor) -> Tensor:
            found: Tensor = step.parts[DISCRIMINATOR]((state,), (judged,), cond)
            return found

        noise = standard_normals(x0, step.generator)
        if update.name == STUDENT:
            drawn = self.drawn(step, noise, cond)
            loss = fooling_loss(logits(noised(drawn)))
            if not self.teacher:
                return loss
            pulled = (drawn - self.taught(step, noise, cond)).square().mean()
            return loss + self.pull * pulled, {"pull": pulled.detach()}
        with torch.no_grad():
            drawn = noised(self.drawn(step, noise, cond))
        # Of the same examples, so that both have the same conditions.
        return discriminator_loss(
            logits, noised(x0), drawn, gamma=self.gamma, lazy=self.lazy, number=step.number
        )

    def drawn(self, step: Step, noise: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Returns images [B, ...] that the student draws from noise [B, ...] under conditions."""
        return self._drawn(step.network, step.denoiser, self.steps, noise, cond, step.generator)

    @torch.no_grad()
    def taught(self, step: Step, noise: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Returns images [B, ...] that the teacher draws from noise [B, ...] under those conditions that it takes."""
        teacher = step.parts[TEACHER]
        assert isinstance(teacher, Denoiser)
        told = {name: cond[name] for name in teacher.keywords}
        return self._drawn(teacher, teacher, self.teacher_steps, noise, told, step.generator)

    def _drawn(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        steps: int,
        noise: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        times = spaced_times(denoiser.process, steps, self.grid)
        at = [Scales.at(denoiser.process, t.expand(len(noise))) for t in times]
        z = at[0].state(torch.zeros_like(noise), noise)
        for t, here, there in zip(times, at, at[1:], strict=False):
            own = drawn_by_network(denoiser, z, generator)
            x0 = predicted_x0(network, denoiser, z, t.expand(len(z)), here, {**cond, **own})
            if self.eta:
                z = ddim_step(z, x0, here, there, self.eta, standard_normals(z, generator))
            else:
                z = flow_step(z, x0, here, there)
        return z
