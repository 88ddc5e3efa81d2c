"""A provenance as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trilemma.errors import OutputError

KEY = "trilemma"  # of the text entry in a PNG
FILE = "provenance.json"  # in a folder of pictures
LIMIT = 1 << 26  # bytes of one that is read


def to_json(provenance: Mapping[str, Any], indent: int | None = None) -> str:
    """A provenance as strict JSON.

    Raises:
        OutputError: for values that JSON has no form for.
    """
    try:
        return json.dumps(provenance, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"the provenance cannot be written as JSON: {error}; keep it to plain values"
        ) from error
