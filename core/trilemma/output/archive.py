"""Samples as a NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trilemma.output.atomic import replacing
from trilemma.output.provenance_json import to_json


def write_npz(
    path: str | Path,
    samples: Tensor,
    provenance: Mapping[str, Any],
    trajectory: Tensor | None = None,
    times: Sequence[float] | None = None,
) -> None:
    """Writes an .npz of `samples`, float32 [n, C, H, W] as they were drawn, and `provenance`, a JSON string.

    A given trajectory is written too: `trajectory`, float32 [S, n, C, H, W], and `times`, float64 [S].

    Raises:
        OutputError: where the disk refuses; nothing is left behind.
    """
    array = samples.detach().float().cpu().numpy()
    text = np.array(to_json(provenance))
    with replacing(Path(path)) as file:
        if trajectory is None:
            np.savez(file, samples=array, provenance=text)
        else:
            way = trajectory.detach().float().cpu().numpy()
            np.savez(file, samples=array, provenance=text, trajectory=way, times=np.array(times))
