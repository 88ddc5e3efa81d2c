"""The trajectory of samples as an animation."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trilemma.output.atomic import replacing
from trilemma.output.picture import enlarged, pixels_of, tile, to_bytes
from trilemma.output.provenance_json import KEY, marked, to_json

MOST_FRAMES = 100
HELD = 1500
_LENGTH = 3000
_SHORTEST = 20
_LONGEST = 200
# The EXIF tag.
_DESCRIPTION = 0x010E


def write_animation(
    path: str | Path, trajectory: Tensor, provenance: Mapping[str, Any], columns: int | None = None
) -> None:
    """Writes the states of a trajectory as an endless GIF or, by the suffix .webp, as an endless lossless WebP.

    A frame is a grid of one state of all samples, clipped to [−1, 1]. At most 100 states are shown: evenly chosen ones,
    with the first and the last. All frames together last 3 s, but each at least 20 and at most 200 ms;
    the last is held for 1.5 s. The provenance is kept in the comment of a GIF, in the EXIF description of a WebP.

    Args:
        path: the file; one that is there is replaced.
        trajectory: the states [S, n, C, H, W]; C is 1 or 3.
        provenance: what made them.
        columns: samples in a row; ⌈√n⌉ by default.

    Raises:
        UsageError: for another number of channels.
        OutputError: for states that are not finite, or where the disk refuses; nothing is left behind.
    """
    states = torch.linspace(0, len(trajectory) - 1, min(len(trajectory), MOST_FRAMES)).round().long()
    frames = [
        Image.fromarray(pixels_of(enlarged(tile(to_bytes(trajectory[state]), columns))))
        for state in states.tolist()
    ]
    # GIF counts in hundredths of a second.
    step = min(_LONGEST, max(_SHORTEST, _LENGTH // len(frames))) // 10 * 10
    options: dict[str, Any] = {
        "save_all": True,
        "append_images": frames[1:],
        "duration": [step] * (len(frames) - 1) + [HELD],
        "loop": 0,
    }
    if Path(path).suffix.lower() == ".webp":
        kind = "WEBP"
        exif = Image.Exif()
        exif[_DESCRIPTION] = f"{KEY}:{json.dumps(json.loads(to_json(provenance)))}"
        options |= {"lossless": True, "exif": exif}
    else:
        kind = "GIF"
        options["comment"] = marked(provenance).encode()
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, **options)
    with replacing(Path(path)) as file:
        file.write(buffer.getvalue())
