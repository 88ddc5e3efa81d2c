"""What would run, and why nothing better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from trilemma.errors import UsageError
from trilemma.ops import native, reference
from trilemma.ops.operators import requested_backend

_REFERENCES: dict[str, Callable[..., None]] = {
    "linear_step": reference.linear_step,
    "keyed_normal": reference.keyed_normal,
}


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
    if op not in _REFERENCES:
        raise UsageError(f"no operator {op!r}; choose from {', '.join(_REFERENCES)}")
    why = _why_not_native(op, arguments, options)
    if why:
        return Explanation(op, "reference", {"native": why})
    return Explanation(op, "native", {})


def _why_not_native(op: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    if requested_backend() == "reference":
        return "TRILEMMA_BACKEND=reference"
    missing = native.load()
    if missing or not (arguments or options):
        return missing
    bound = signature(_REFERENCES[op]).bind(*arguments, **options)
    bound.apply_defaults()
    if op == "linear_step":
        reference.check_linear_step(*bound.args)
    else:
        reference.check_keyed_normal(bound.arguments["out"], bound.arguments["indices"])
    bound.arguments["seed"] = 0  # decides nothing here, and an operator's int has 63 bits
    if bound.arguments["out"].device.type != "cpu":
        return "out is not on the CPU"
    why: str = getattr(torch.ops.trilemma, f"{op}_why_not_native")(*bound.args)
    return why
