"""Samples as a NumPy archive."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trilemma.output.atomic import write_atomically


def write_npz(path: Path, samples: Tensor, provenance: Mapping[str, Any]) -> None:
    """Writes `samples` (float32 [n, C, H, W]) and `provenance` (a JSON string) as one .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        samples=samples.detach().float().cpu().numpy(),
        provenance=np.array(json.dumps(provenance, ensure_ascii=False)),
    )
    write_atomically(path, buffer.getvalue())
