"""The teacher of a distillation."""

from __future__ import annotations

import copy

from torch import nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.beside import denoiser_beside
from trilemma_plugins.distillation.guided import check_guided, guidance_condition

# The name of the part beside the student.
TEACHER = "teacher"


def teacher_of(student: nn.Module, model: str, guidance: str = "") -> Denoiser:
    """Returns the teacher, in evaluation mode and without gradients.

    Args:
        student: the network that learns.
        model: name or directory of the teacher; "" for the weights that the student begins with.
        guidance: name of the student's condition that is the scale of the teacher's guidance; "" for none.

    Raises:
        UsageError: for a teacher of another process or shape, conditions that the student does not have, or a guidance
            that one of them cannot have.
    """
    if not isinstance(student, Denoiser):
        raise UsageError(f"a {type(student).__name__} is no denoiser; distil a denoiser")
    if guidance:
        guidance_condition(student, guidance)
    if not model and guidance:
        # The weights that it begins with may never have been told a scale, or may have learned to hear it.
        raise UsageError(
            f"guidance={guidance} needs a teacher by name, which says whether it is guided or told the scale; "
            "give teacher=NAME, or teacher={STAGE} in a recipe of stages"
        )
    if not model:
        copied = copy.deepcopy(student)
        copied.eval().requires_grad_(False)
        return copied
    teacher = denoiser_beside(student, model, TEACHER)
    if guidance:
        check_guided(teacher, guidance)
    return teacher
