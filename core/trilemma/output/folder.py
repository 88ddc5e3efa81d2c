"""A folder of pictures, one a sample, that an interrupted run goes on filling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trilemma.errors import OutputError
from trilemma.output.atomic import check_writable, write_atomically
from trilemma.output.picture import png, to_bytes

RECORD = "provenance.json"

# What decides a sample's pixels; the rest of a provenance may differ between the runs that fill a folder.
IDENTITY = (
    "model",
    "sampler",
    "guidance",
    "process",
    "steps",
    "cond",
    "seed",
    "noise",
    "dtype",
    "deterministic",
)


class SampleFolder:
    """`folder/00000017.png` is sample 17; `folder/provenance.json` says of what.

    Args:
        path: the folder; made where it is missing.
        provenance: of the samples that are to be written.

    Raises:
        OutputError: for a folder that holds other samples, or other things.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = {key: provenance[key] for key in IDENTITY}
        try:
            path.mkdir(parents=True, exist_ok=True)
            foreign = any(path.iterdir()) and not (path / RECORD).is_file()
        except OSError as error:
            raise OutputError(
                f"cannot use the folder {path}: {error.strerror}; choose another --out"
            ) from error
        if foreign:
            raise OutputError(f"{path} holds files that are no samples; choose an empty folder for --out")
        check_writable(path)
        if (path / RECORD).is_file():
            self._check_same()
        else:
            self.record(provenance)

    def missing(self, n: int) -> list[int]:
        """Indices below n that are not there yet."""
        return [index for index in range(n) if not self._file(index).is_file()]

    def write(self, indices: Sequence[int] | Tensor, samples: Tensor) -> None:
        """Writes samples [b, C, H, W] in [−1, 1] under their indices."""
        for index, image in zip(indices, to_bytes(samples), strict=True):
            write_atomically(self._file(int(index)), png(image, {**self.identity, "index": int(index)}))

    def record(self, provenance: Mapping[str, Any]) -> None:
        """Writes the provenance of the folder."""
        text = json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path / RECORD, text.encode())

    def _file(self, index: int) -> Path:
        return self.path / f"{index:08d}.png"

    def _check_same(self) -> None:
        try:
            found = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self.path / RECORD} cannot be read: {error}; choose another --out"
            ) from error
        for key, value in self.identity.items():
            if found.get(key) != json.loads(json.dumps(value)):
                raise OutputError(
                    f"{self.path} holds samples of {key} = {found.get(key)!r}, not {value!r}; "
                    "choose another --out or repeat that command"
                )
