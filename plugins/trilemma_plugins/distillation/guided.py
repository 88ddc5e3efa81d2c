"""A teacher under classifier-free guidance, whose scale is a condition of the student."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.condition import ScalarCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.update import Step
from trilemma.numerics.broadcasting import column
from trilemma_plugins.distillation.reading import predicted_x0
from trilemma_plugins.distillation.steps import Scales


def guidance_condition(student: nn.Module, name: str) -> ScalarCondition:
    """Returns the condition by which a student is told the scale of guidance.

    Raises:
        UsageError: where the student takes no number of that name.
    """
    found = student.conditions.get(name) if isinstance(student, Denoiser) else None
    if not isinstance(found, ScalarCondition):
        raise UsageError(
            f"guidance={name} is no scalar condition of the student; declare one of this name in "
            "[[denoiser.options.conditions]], with the range of scales as low and high"
        )
    return found


def check_guided(teacher: Denoiser, name: str) -> None:
    """Refuses a teacher that is neither told the scale by a condition of this name nor has a null to be guided from.

    Raises:
        UsageError: for such a teacher.
    """
    if name not in teacher.conditions and not any(entry.has_null for entry in teacher.conditions.values()):
        raise UsageError(
            f"guidance={name} needs a teacher with a condition that has a null, and this one has none; "
            "choose another teacher, or leave guidance out"
        )


def with_scale(student: Denoiser, step: Step, name: str) -> Mapping[str, Tensor]:
    """Returns the conditions of a step, and the scale of each example, uniform in the range of the condition.

    Args:
        student: that is told them.
        step: of the training.
        name: of the condition; "" for no guidance.
    """
    if not name:
        return step.cond
    condition, batch = guidance_condition(student, name), len(step.x0)
    u = torch.rand(batch, generator=step.generator, dtype=torch.float64)
    scales = (condition.low + (condition.high - condition.low) * u).clamp(condition.low, condition.high)
    told = condition.prepare(scales.tolist()).to(step.x0.device)
    return {**step.cond, **told.take(torch.arange(batch, device=step.x0.device))}


def teacher_x0(
    teacher: Denoiser, z: Tensor, t: Tensor, scales: Scales, cond: Mapping[str, Tensor], guidance: str = ""
) -> Tensor:
    """Returns the answer x̂₀(∅) + s (x̂₀(c) − x̂₀(∅)) of a teacher (2207.12598), [B, ...].

    A teacher that takes the scale as a condition, as a student of the stage before does, is told it instead. An example
    without a scale has s = 1.

    Args:
        teacher: the network.
        z: states [B, ...].
        t: times [B], float64 on the host.
        scales: of the process at t.
        cond: conditions of the student.
        guidance: name of the condition that is the scale s; "" for no guidance.
    """
    told = {name: cond[name] for name in teacher.keywords}
    answer = predicted_x0(teacher, teacher, z, t, scales, told)
    if not guidance or guidance in teacher.conditions:
        return answer
    everywhere = torch.ones(len(z), dtype=torch.bool, device=z.device)
    nulls = [entry.drop(told, everywhere) for entry in teacher.conditions.values() if entry.has_null]
    without = told | {name: tensor for null in nulls for name, tensor in null.items()}
    null = predicted_x0(teacher, teacher, z, t, scales, without)
    return null + column(_scale(cond, guidance), z) * (answer - null)


def _scale(cond: Mapping[str, Tensor], name: str) -> Tensor:
    given = cond.get(f"{name}_given")
    return cond[name] if given is None else torch.where(given, cond[name], 1.0)
