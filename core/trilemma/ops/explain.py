"""Explanations: the backend that an operator would run on, and why no better one."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from trilemma.errors import UsageError
from trilemma.ops import choice
from trilemma.ops.operator import OPERATORS, Operator


@dataclass(frozen=True)
class Explanation:
    """The backend that an operator runs on, and the reason why each better one was passed over.

    Attributes:
        op: name of the operator.
        backend: "native" or "reference".
        passed_over: by backend, the reason why it was passed over.
        signature: what the operator is called with; shown where it was asked for without arguments.
    """

    op: str
    backend: str
    passed_over: dict[str, str]
    signature: str = ""

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.passed_over.items())
        return f"{self.op}{self.signature} runs on {self.backend}" + (f" ({reasons})" if reasons else "")


def explain(op: str, *arguments: Any, **options: Any) -> Explanation:
    """Names the backend that `op` would run on with these arguments, without running it.

    Without arguments: the backend for contiguous float32 tensors on the CPU, and the operator's signature.

    Raises:
        UsageError: for an unknown operator, or arguments that are not the operator's or do not fit together.
    """
    if op not in OPERATORS:
        raise UsageError(f"no operator {op!r}; choose from {', '.join(OPERATORS)}")
    operator = OPERATORS[op]
    asked = bool(arguments or options)
    try:
        given = operator.given(*arguments, **options) if asked else {}
    except TypeError as error:
        raise UsageError(
            f"explain({op!r}): {error}; the operator takes {op}{_signature(operator)}"
        ) from error
    choice.in_force()
    why = operator.why_not_native(*given.values())
    shown = "" if asked else _signature(operator)
    return Explanation(op, "reference" if why else "native", {"native": why} if why else {}, shown)


def _signature(operator: Operator) -> str:
    """Returns the parameters of an operator without their types."""
    bare = [entry.replace(annotation=Parameter.empty) for entry in operator.signature.parameters.values()]
    return str(Signature(bare))
