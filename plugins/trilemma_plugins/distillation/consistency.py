"""Consistency: a network that answers alike all along the probability flow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.distillation.guided import teacher_x0, with_scale
from trilemma_plugins.distillation.reading import predicted_x0
from trilemma_plugins.distillation.steps import Scales, check_one_component, flow_step
from trilemma_plugins.distillation.teacher import TEACHER, teacher_of


@dataclass(frozen=True)
class Consistency(Objective):
    """E_i d(x̂₀(z_t, t), sg x̂₀(z_s, s)), t and s = t_{i+1} neighbours on a grid of N times.

    z_s comes from z_t by one step of DDIM with the teacher's answer (consistency distillation), or, without a teacher,
    from the same data and noise (consistency training). The answer at time 0 is the data itself. d is the pseudo-Huber
    distance √(‖·‖² + c²) − c of an image of D numbers, c = 0.00054 √D (2310.14189). The answers of a network trained
    so are samples: one step, or a few with the sampler `lcm` on any part of the grid.

    Args:
        teacher: the model that is distilled: a name or directory for `trilemma.load`; "start" for the weights that the
            student begins with; "" for none.
        steps: N of the grid.
        grid: of the times.
        huber: c/√D of the distance.
        drop: probability of replacing the conditions of an example by the null ones, for teacher and student alike.
        guidance: name of the student's condition that is the scale s of the teacher's guidance, as in `Progressive`
            (2310.04378); "" for none.

    Raises:
        UsageError: for a drop outside [0, 1], a number of steps below 2, a process of several components, a
            parameterization that does not give x₀ at one of the times, or a guidance that teacher or student cannot
            have.

    References:
        Song et al., Consistency Models, arXiv:2303.01469; Song & Dhariwal, Improved Techniques for Training
        Consistency Models, arXiv:2310.14189.
    """

    teacher: str = "start"
    steps: int = 20
    grid: Grid = "trailing"
    huber: float = 0.00054
    drop: float | dict[str, float] = 0.0
    guidance: str = ""

    frozen = (TEACHER,)

    def __post_init__(self) -> None:
        checked_integer(self.steps, "consistency: steps", 2, what="is no number of steps")
        check_drop("consistency", self.drop)
        if not 0 < self.huber < math.inf:
            raise UsageError(
                f"consistency: huber={self.huber!r} is out of range; give a positive number such as 0.00054"
            )

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        if not self.teacher:
            if self.guidance:
                raise UsageError(f"guidance={self.guidance} is that of a teacher; give teacher=NAME")
            return {}
        return {TEACHER: teacher_of(model, "" if self.teacher == "start" else self.teacher, self.guidance)}

    def provides(self) -> tuple[str, ...]:
        return (self.guidance,) if self.guidance else ()

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the mean over the batch of the distance, divided by √D."""
        student, x0 = step.denoiser, step.x0
        process = student.process
        check_one_component(process)
        times = spaced_times(process, self.steps, self.grid)
        u = uniform_draws(len(x0), step.generator)
        i = (u * self.steps).floor().long().clamp_max(self.steps - 1)
        t, s = times[i], times[i + 1]
        noise = standard_normals(x0, step.generator)
        told = with_scale(student, step, self.guidance)
        cond = drop_conditions(student, told, self.drop, step.generator)
        at_t, at_s = Scales.at(process, t), Scales.at(process, s)
        z = process.perturb(x0, t, noise)
        with torch.no_grad():
            later = self._later(step, x0, z, t, at_t, at_s, cond)
            target = self._target(step, later, s, cond)
        answer = predicted_x0(step.network, student, z, t, at_t, cond)
        squares = (answer - target).square().flatten(1).mean(1)
        # Both terms of the distance divided by √D.
        return ((squares + self.huber**2).sqrt() - self.huber).mean()

    def _later(
        self,
        step: Step,
        x0: Tensor,
        z: Tensor,
        t: Tensor,
        at_t: Scales,
        at_s: Scales,
        cond: Mapping[str, Tensor],
    ) -> Tensor:
        """z_s [B, ...] of the teacher's flow through z_t, or of the same data and noise."""
        teacher = step.parts.get(TEACHER)
        if teacher is None:
            return flow_step(z, x0, at_t, at_s)
        assert isinstance(teacher, Denoiser)
        return flow_step(z, teacher_x0(teacher, z, t, at_t, cond, self.guidance), at_t, at_s)

    def _target(self, step: Step, z: Tensor, s: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """The student's answer at z_s, and z_s itself where s = 0, at which no network is asked."""
        student = step.denoiser
        asked = s.clamp_min(student.process.earliest_time)
        answer = predicted_x0(student, student, z, asked, Scales.at(student.process, asked), cond)
        return torch.where((s == 0).to(z.device).view(-1, *[1] * (z.dim() - 1)), z, answer)
