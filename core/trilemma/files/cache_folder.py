"""The folder of what can be made again, such as the embeddings of captions."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns $TRILEMMA_CACHE, else `trilemma` in $XDG_CACHE_HOME, else ~/.cache/trilemma."""
    named = os.environ.get("TRILEMMA_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trilemma"
