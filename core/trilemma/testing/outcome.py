"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "skipped", "xfail", "xpass"]


@dataclass(frozen=True)
class Record:
    """The result of a check.

    Attributes:
        kind: kind of the component.
        name: name of the check.
        status: "passed" or "failed"; "skipped" where it cannot be made; "xfail" where it failed as it was declared
            to; "xpass" where it passed in spite of that, which is a failure too.
        reason: what was found, in one line.
    """

    kind: str
    name: str
    status: Status
    reason: str = ""

    @property
    def failed(self) -> bool:
        return self.status in ("failed", "xpass")


class Skipped(Exception):
    """Raised by a check that cannot be made, with the reason."""
