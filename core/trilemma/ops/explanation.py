"""What would run, and why nothing better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trilemma.errors import UsageError
from trilemma.ops.operator import OPERATORS


@dataclass(frozen=True)
class Explanation:
    """The backend that an operator runs on, and the reason why each better one was passed over."""

    op: str
    backend: str
    passed_over: dict[str, str]

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.passed_over.items())
        return f"{self.op} runs on {self.backend}" + (f" ({reasons})" if reasons else "")


def explain(op: str, *arguments: Any, **options: Any) -> Explanation:
    """Names the backend that `op` would run on with these arguments, without running it.

    Without arguments: the backend for contiguous float32 tensors on the CPU.

    Raises:
        UsageError: for an unknown operator, or arguments that do not fit together.
        TypeError: where the arguments are not the operator's.
    """
    if op not in OPERATORS:
        raise UsageError(f"no operator {op!r}; choose from {', '.join(OPERATORS)}")
    why = OPERATORS[op].why_not_native(*arguments, **options)
    return Explanation(op, "reference", {"native": why}) if why else Explanation(op, "native", {})
