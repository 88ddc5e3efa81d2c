"""The teacher of a distillation."""

from __future__ import annotations

import copy

from torch import nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.loading import load

# The name of the part beside the student.
TEACHER = "teacher"


def teacher_of(student: nn.Module, model: str) -> Denoiser:
    """Returns the teacher, in evaluation mode and without gradients.

    Args:
        student: the network that learns.
        model: name or directory of the teacher; "" for the weights that the student begins with.

    Raises:
        UsageError: for a teacher of another process or shape, or conditions that the student does not have.
    """
    if not isinstance(student, Denoiser):
        raise UsageError(f"a {type(student).__name__} is no denoiser; distil a denoiser")
    if not model:
        copied = copy.deepcopy(student)
        copied.eval().requires_grad_(False)
        return copied
    teacher = load(model)
    device = next((weight.device for weight in student.parameters()), None)
    if not isinstance(teacher, Denoiser):
        raise UsageError(f"the teacher {model} is no denoiser; name a denoiser")
    if teacher.shape != student.shape or teacher.process != student.process:
        raise UsageError(
            f"the teacher {model} is of {teacher.shape} under {teacher.process!r}, the student of {student.shape} "
            f"under {student.process!r}; give both the same [process] and data"
        )
    if missing := set(teacher.conditions) - set(student.conditions):
        raise UsageError(
            f"the teacher {model} takes the conditions {', '.join(sorted(missing))}, which the student has not; "
            "give the student the same conditions"
        )
    return teacher.to(device)
