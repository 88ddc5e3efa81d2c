"""A safetensors file whose header is compared with a network before its numbers are read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

from safetensors.torch import load
from torch import Tensor, nn

from trilemma.files.regular import open_regular, size_of
from trilemma.files.tensor_header import Header, read_header
from trilemma.machine.allowance import Allowance
from trilemma.machine.memory import physical_memory

_PIECE = 1 << 20


class WeightsFile:
    """An open safetensors file; use it as a context manager.

    It is hashed in pieces, and read only once its header was found to fit a network, so that its memory is bounded by
    that of the network.

    Args:
        path: of a regular file.

    Raises:
        OSError: for a file that cannot be opened, is no regular file, or exceeds the memory of the machine.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path, physical_memory())
        self._size = size_of(self._file)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def sha256(self) -> str:
        """Returns the sha256 of the file, in hexadecimal digits."""
        digest = hashlib.sha256()
        self._file.seek(0)
        left = self._size
        while left > 0 and (piece := self._file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest()

    def header(self) -> Header:
        """Returns the shapes of the tensors that the file declares.

        Raises:
            ValueError: for a malformed header, or one of another size than the file has.
        """
        return read_header(self._file)

    def read(self, network: nn.Module) -> dict[str, Tensor]:
        """Returns the tensors by name, where they are those of a network's state.

        Raises:
            Misfit: for other names or shapes.
            ValueError: for a damaged file.
        """
        _compare(self.header().shapes, {name: tuple(t.shape) for name, t in network.state_dict().items()})
        self._file.seek(0)
        try:
            return load(self._file.read(self._size))
        except Exception as error:
            raise ValueError(str(error)) from error


class Misfit(ValueError):
    """Weights of another network."""


def allowance_for(header: Header) -> Allowance:
    """Returns the allowance to build the network whose weights these are: twice their size in float32, and 64 MiB."""
    return Allowance(
        8 * header.numbers + (1 << 26),
        10 * len(header.shapes) + 1000,
        f"its weights are {header.numbers:,} numbers in {len(header.shapes):,} tensors",
    )


def _compare(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    for reason, names in (
        ("they lack", wanted.keys() - found.keys()),
        ("the network lacks", found.keys() - wanted.keys()),
    ):
        if names:
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            raise Misfit(f"{reason} {min(names)}{more}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise Misfit(f"{name} is of shape {found[name]}, the network's of {shape}")
