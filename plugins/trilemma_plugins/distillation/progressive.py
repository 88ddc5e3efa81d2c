"""Progressive distillation: one step of a student for two of its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.broadcasting import column
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.distillation.guided import teacher_x0, with_scale
from trilemma_plugins.distillation.reading import predicted_x0
from trilemma_plugins.distillation.steps import Scales, flow_step, halved_times
from trilemma_plugins.distillation.teacher import TEACHER, teacher_of


@dataclass(frozen=True)
class Progressive(Objective):
    """E_i w(t) ‖x̃ − x̂₀(z_t, t)‖² on the grid of the student's N steps, t = t_i one of its times.

    The teacher takes two steps of DDIM, t → m → s, on the grid of 2N steps; x̃ is the answer with which one step
    t → s of the student lands on the same z_s:

        x̃ = (z_s − r z_t)/(α_s − r α_t),   r = σ_s/σ_t.

    It is a mean of the teacher's two answers, the second alone in the step onto the data:

        x̃ = κ x̂₀(z_t) + (1 − κ) x̂₀(z_m),   κ = (σ_s/σ_m)(α_m − (σ_m/σ_t) α_t)/(α_s − r α_t).

    With `guidance`, the teacher's answer is x̂₀(∅) + s (x̂₀(c) − x̂₀(∅)), and the student is told s by the scalar
    condition of that name, drawn for each example uniformly from its range low … high: a guided sample then needs one
    evaluation a step. A teacher that takes this condition itself is told s.

    A chain of stages halves N from one to the next: each student is the next teacher, and the recipe's `start` gives
    it the teacher's weights.

    Args:
        teacher: the model that is distilled: a name or directory for `trilemma.load`; "" for the weights that the
            student begins with.
        steps: N of the student.
        grid: of the times; that of N steps must be every second of the one of 2N, as in "trailing".
        weighting: w(t) = "truncated-snr": max(SNR, 1), or "snr+1": the plain error of v.
        drop: probability of replacing the conditions of an example by the null ones, for teacher and student alike.
        guidance: name of the student's condition that is the scale s of the teacher's guidance; "" for none.

    Raises:
        UsageError: for an unknown weighting, a drop outside [0, 1], a number of steps below 1, grids that disagree, a
            process of several components, a parameterization that does not give x₀ at one of the times, or a guidance
            that teacher or student cannot have.

    References:
        Salimans & Ho, Progressive Distillation for Fast Sampling of Diffusion Models, arXiv:2202.00512.
        Meng et al., On Distillation of Guided Diffusion Models, arXiv:2210.03142.
    """

    teacher: str = ""
    steps: int = 8
    grid: Grid = "trailing"
    weighting: Literal["truncated-snr", "snr+1"] = "truncated-snr"
    drop: float | dict[str, float] = 0.0
    guidance: str = ""

    frozen = (TEACHER,)

    def __post_init__(self) -> None:
        checked_integer(self.steps, "progressive: steps", 1, what="is no number of steps")
        check_drop("progressive", self.drop)
        if self.weighting not in ("truncated-snr", "snr+1"):
            raise UsageError(
                f"progressive: unknown weighting={self.weighting!r}; expected truncated-snr or snr+1"
            )

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {TEACHER: teacher_of(model, self.teacher, self.guidance)}

    def provides(self) -> tuple[str, ...]:
        return (self.guidance,) if self.guidance else ()

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the mean over batch and pixels of the weighted squared residual in x₀."""
        student, teacher = step.denoiser, step.parts[TEACHER]
        assert isinstance(teacher, Denoiser)
        process, x0 = student.process, step.x0
        times = halved_times(process, self.steps, self.grid)
        u = uniform_draws(len(x0), step.generator)
        i = 2 * (u * self.steps).floor().long().clamp_max(self.steps - 1)
        t, s = times[i], times[i + 2]
        noise = standard_normals(x0, step.generator)
        told = with_scale(student, step, self.guidance)
        cond = drop_conditions(student, told, self.drop, step.generator)
        z = process.perturb(x0, t, noise)
        at_t = Scales.at(process, t)
        with torch.no_grad():
            target = two_steps(teacher, z, t, times[i + 1], s, cond, self.guidance)
        answer = predicted_x0(step.network, student, z, t, at_t, cond)
        snr = at_t.snr
        weight = snr.clamp_min(1) if self.weighting == "truncated-snr" else snr + 1
        errors = (answer - target).square().flatten(1).mean(1)
        return (weight.to(errors) * errors).mean()


def two_steps(
    teacher: Denoiser,
    z: Tensor,
    t: Tensor,
    m: Tensor,
    s: Tensor,
    cond: Mapping[str, Tensor],
    guidance: str = "",
) -> Tensor:
    """Returns x̃ [B, ...], with which one step of DDIM t → s lands where the teacher's steps t → m → s do.

    Args:
        teacher: the network that takes the two steps.
        z: states z_t [B, ...].
        t, m, s: falling times [B], float64 on the host.
        cond: conditions of the student, among them those of the teacher.
        guidance: name of the condition that is the scale of the teacher's guidance; "" for none.
    """
    at_t, at_m, at_s = (Scales.at(teacher.process, time) for time in (t, m, s))
    first = teacher_x0(teacher, z, t, at_t, cond, guidance)
    middle = flow_step(z, first, at_t, at_m)
    second = teacher_x0(teacher, middle, m, at_m, cond, guidance)
    ratio = at_s.sigma / at_t.sigma
    share = at_s.sigma / at_m.sigma * (at_m.alpha - at_m.sigma / at_t.sigma * at_t.alpha)
    return second + column(share / (at_s.alpha - ratio * at_t.alpha), z) * (first - second)
