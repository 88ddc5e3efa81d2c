"""Options of single stages of a cascade on the command line: `--stage 2:steps=10`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trilemma.errors import UsageError, shown


def stages_of(texts: Sequence[str]) -> dict[int, dict[str, Any]] | None:
    """Returns the options of single stages by their number; None for no text.

    Raises:
        UsageError: for a text of another form, or a stage that comes twice.
    """
    from trilemma.registry.spec import Spec, parse_spec

    found: dict[int, dict[str, Any]] = {}
    for text in texts:
        number, colon, options = (part.strip() for part in text.partition(":"))
        if not number.isdecimal() or not colon or int(number) in found:
            raise UsageError(
                f"--stage {shown(text)} is not NUMBER:OPTIONS, given once a stage; write for example --stage 2:steps=10"
            )
        found[int(number)] = {
            key: str(value) if isinstance(value, Spec) else value
            for key, value in parse_spec(f"stage:{options}").options.items()
        }
    return found or None
