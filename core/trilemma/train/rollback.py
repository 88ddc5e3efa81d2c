"""Going back to the last checkpoint, where a run has diverged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# The factor of the learning rates after a rollback.
LOWER_RATE: Final = 0.5


class Diverged(Exception):
    """Says what of a run is not as it should be, and after how many steps."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


@dataclass(frozen=True)
class Rollback:
    """The record of a rollback.

    Attributes:
        to: steps of the checkpoint that the run went back to.
        diverged: steps after which it had diverged.
    """

    to: int
    diverged: int

    def __str__(self) -> str:
        return f"back to step {self.to}, with {LOWER_RATE:g} times the learning rate from there on"
