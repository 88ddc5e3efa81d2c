"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        kind: kind of the component.
        check: name of the check.
        status: "passed", "failed", or "skipped" where the declaration does not call for it.
        detail: what was found, in one line.
    """

    kind: str
    check: str
    status: Literal["passed", "failed", "skipped"]
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.status == "failed"
