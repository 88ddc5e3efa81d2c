"""Samples as a JPEG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.output.atomic import replacing
from trilemma.output.picture import pixels_of, sheet
from trilemma.output.provenance_json import marked

QUALITY = 95
# Bytes of a comment, whose length is written in 16 bits together with itself.
_LONGEST_COMMENT = 65_533


def write_jpeg_grid(
    path: str | Path, samples: Tensor, provenance: Mapping[str, Any], columns: int | None = None
) -> None:
    """Writes samples [n, C, H, W] in [−1, 1] as one JPEG of quality 95, its colours not subsampled; see `sheet`.

    The provenance is kept in the file's comment.

    Raises:
        UsageError: for another number of channels than 1 or 3, or a provenance that no comment can hold.
        OutputError: for samples that are not finite, or where the disk refuses; nothing is left behind.
    """
    comment = jpeg_comment(provenance)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels_of(sheet(samples, columns)))
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0, comment=comment)
    with replacing(Path(path)) as file:
        file.write(buffer.getvalue())


def jpeg_comment(provenance: Mapping[str, Any], room: int = 0) -> bytes:
    """Returns a provenance as the comment of a JPEG.

    Args:
        provenance: what made the samples.
        room: bytes by which it may still grow.

    Raises:
        UsageError: for one that is too long.
    """
    comment = marked(provenance).encode()
    if len(comment) + room > _LONGEST_COMMENT:
        raise UsageError(
            f"the provenance has {len(comment):,} bytes, a JPEG's comment at most {_LONGEST_COMMENT:,}; write a .png"
        )
    return comment
