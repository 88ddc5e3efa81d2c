"""The values that a model's card may hold, key by key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from trilemma.checks import as_integer
from trilemma.errors import shown

LARGEST_EXTENT = 1 << 20
LONGEST_NAME = 200

# Settings of a network that other keys of the card hold, not its options, by its kind.
_GIVEN_ELSEWHERE = {
    "denoiser": ("process", "parameterization", "shape"),
    "autoencoder": ("shape",),
    "classifier": ("shape", "classes", "process"),
    "features": ("shape", "classes"),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Any], bool]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(entry) is int and 1 <= entry <= LARGEST_EXTENT for entry in value)
    )


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(map(_is_finite, value))
    return numbers and value[0] < value[1]


def _is_finite(value: Any) -> bool:
    return (isinstance(value, float) and math.isfinite(value)) or as_integer(value) is not None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _options_of(kind: str) -> tuple[Check, str]:
    given = _GIVEN_ELSEWHERE[kind]
    return lambda value: not any(name in value for name in given), f"a table without {', '.join(given)}"


def _is_count(value: Any) -> bool:
    return bool(value >= 1)


def _is_sha256(value: Any) -> bool:
    return bool(_SHA256.fullmatch(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_CHECKS: dict[str, tuple[Check, str]] = {
    "model.name": (_is_name, f"a printable name of at most {LONGEST_NAME} characters"),
    "model.licence": (_is_name, f"a printable name of at most {LONGEST_NAME} characters"),
    "weights.sha256": (_is_sha256, "64 hexadecimal digits"),
    "latent.sha256": (_is_sha256, "64 hexadecimal digits"),
    "stage.sha256": (_is_sha256, "64 hexadecimal digits"),
    "stage.steps": (_is_count, "a number of steps"),
    "sampling.steps": (_is_count, "a number of steps"),
    "data.shape": (_is_shape, "[C, H, W], three positive integers"),
    "data.range": (_is_range, "two finite numbers that rise"),
    "data.classes": (_are_texts, "a list of strings"),
    **{f"{kind}.options": _options_of(kind) for kind in _GIVEN_ELSEWHERE},
    "evaluation.dataset": (_is_text, "a string"),
    "evaluation.features": (_is_text, "a string"),
    "evaluation.metrics": (_are_texts, "a list of strings"),
    "evaluation.cond": (lambda value: isinstance(value, dict), "a table"),
    "evaluation.reference": (lambda value: value in ("train", "test"), '"train" or "test"'),
}


def wrong_value(card: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with the first bad value of a card whose tables and types are right; None for none."""
    for key, (right, expected) in _CHECKS.items():
        name, _, entry = key.partition(".")
        tables = card.get(name, [])
        for table in tables if isinstance(tables, list) else [tables]:
            if entry in table and not right(table[entry]):
                return f"{key} = {shown(table[entry])} is not {expected}"
    return None
