"""A provenance as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from trilemma.errors import OutputError

# A surrogate, as in a file name that is no text: UTF-8 has no form for it, and JSON has this one.
_SURROGATE = re.compile("[\ud800-\udfff]")
# The key of the text entry in a PNG; in other files the comment begins with it.
KEY = "trilemma"
# The name of the file in a folder of pictures.
FILE = "provenance.json"
# The largest provenance that is read, in bytes.
LIMIT = 1 << 26


def to_json(provenance: Mapping[str, Any], indent: int | None = None) -> str:
    """Returns a provenance as strict JSON.

    Raises:
        OutputError: for values that JSON has no form for.
    """
    try:
        text = json.dumps(provenance, indent=indent, allow_nan=False, ensure_ascii=False)
        return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"the provenance cannot be written as JSON: {error}; keep it to plain values"
        ) from error


def marked(provenance: Mapping[str, Any]) -> str:
    """Returns a provenance as JSON after a mark that tells it from other people's comments."""
    return f"{KEY}:{to_json(provenance)}"
