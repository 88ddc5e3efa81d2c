"""A trained denoiser that stands beside another in its training."""

from __future__ import annotations

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.loading import load


def denoiser_beside(student: Denoiser, model: str, role: str) -> Denoiser:
    """Returns a trained denoiser of the same states as one that learns, where that one is.

    Args:
        student: the denoiser that learns.
        model: name or directory of the trained one.
        role: what messages call it, such as "teacher".

    Raises:
        UsageError: for a model that is no denoiser, is of another process or shape, or takes conditions that the
            student does not have.
    """
    found = load(model)
    if not isinstance(found, Denoiser):
        raise UsageError(f"the {role} {model} is no denoiser; name a denoiser")
    if found.shape != student.shape or found.process != student.process:
        raise UsageError(
            f"the {role} {model} is of {found.shape} under {found.process!r}, the network that learns of "
            f"{student.shape} under {student.process!r}; give both the same [process] and data"
        )
    if missing := set(found.keywords) - set(student.keywords):
        raise UsageError(
            f"the {role} {model} is told {', '.join(sorted(missing))}, which the network that learns is not; "
            "give it the same conditions, with the same nulls"
        )
    return found.to(next((weight.device for weight in student.parameters()), None))
