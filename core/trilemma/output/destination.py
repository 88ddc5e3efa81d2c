"""Destinations of samples: the kind of output that a path asks for, one interface for all kinds."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import OutputError, UsageError
from trilemma.files.partials import partial_name
from trilemma.machine.memory import check_memory
from trilemma.output.animation import write_animation
from trilemma.output.archive import write_npz
from trilemma.output.atomic import telling
from trilemma.output.folder import SampleFolder
from trilemma.output.indices import format_indices
from trilemma.output.photo import jpeg_comment, write_jpeg_grid
from trilemma.output.picture import check_channels, write_png_grid


class Sink(Protocol):
    """An open destination."""

    def missing(self) -> Sequence[int]:
        """Returns the indices that are still to be drawn."""

    def add(
        self,
        indices: Sequence[int],
        samples: Tensor,
        trajectory: Tensor | None = None,
        times: Sequence[float] | None = None,
    ) -> None:
        """Takes samples [b, C, H, W] of these indices and, only into an array, their trajectory [S, b, C, H, W]."""

    def finish(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Completes the output and returns the provenance it keeps."""


@dataclass(frozen=True)
class Destination(ABC):
    """A place for samples that was not touched yet."""

    path: Path

    holds_trajectory: ClassVar[bool] = False
    needs_trajectory: ClassVar[bool] = False

    def of_stage(self, number: int) -> Destination:
        """Returns the place of the images of an earlier stage of a cascade: out.png becomes out.stage-1.png.

        Args:
            number: of the stage, from 1.

        Raises:
            UsageError: for a place that holds the trajectory of the last stage alone.
        """
        if self.needs_trajectory:
            raise UsageError(
                f"{self.path} shows the way of the last stage alone; write a .png, or leave --stages out"
            )
        return replace(self, path=self.path.with_name(f"{self.path.stem}.stage-{number}{self.path.suffix}"))

    @abstractmethod
    def check(self, shape: Sequence[int], numbers: int = 0) -> None:
        """Refuses samples of a shape (C, H, W) or of too many numbers in all, and a place that cannot be written.

        It is called before anything is drawn.
        """

    @abstractmethod
    def open(
        self, indices: Sequence[int], provenance: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Sink]:
        """Opens the sink for samples of these indices, made by `provenance`."""


@dataclass(frozen=True)
class Grid(Destination):
    """One picture of all samples."""

    columns: int | None = None

    def check(self, shape: Sequence[int], numbers: int = 0) -> None:
        check_channels(shape[0])
        _check_file(self.path, numbers)

    def open(
        self, indices: Sequence[int], provenance: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Sink]:
        return contextlib.nullcontext(_FileSink(indices, self._write))

    @abstractmethod
    def _write(
        self, samples: Tensor, provenance: Mapping[str, Any], trajectory: Tensor | None, times: Any
    ) -> None:
        """Writes samples [n, C, H, W] and, where it is kept, their trajectory [S, n, K·C, H, W]."""


@dataclass(frozen=True)
class PngGrid(Grid):
    """One PNG of all samples."""

    def _write(
        self, samples: Tensor, provenance: Mapping[str, Any], trajectory: Tensor | None, times: Any
    ) -> None:
        write_png_grid(self.path, samples, provenance, self.columns)


@dataclass(frozen=True)
class JpegGrid(Grid):
    """One JPEG of all samples."""

    def open(
        self, indices: Sequence[int], provenance: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Sink]:
        # Before anything is drawn; speed and kernels are filled in later.
        jpeg_comment(_located(provenance, indices), room=4096)
        return super().open(indices, provenance)

    def _write(
        self, samples: Tensor, provenance: Mapping[str, Any], trajectory: Tensor | None, times: Any
    ) -> None:
        write_jpeg_grid(self.path, samples, provenance, self.columns)


@dataclass(frozen=True)
class Animation(Grid):
    """The trajectory of all samples, a grid for each state, as a GIF or WebP."""

    holds_trajectory: ClassVar[bool] = True
    needs_trajectory: ClassVar[bool] = True

    def _write(
        self, samples: Tensor, provenance: Mapping[str, Any], trajectory: Tensor | None, times: Any
    ) -> None:
        if trajectory is None:
            raise UsageError(
                f"{self.path} shows the way of the samples, which was not kept; draw them with trajectory=True, "
                "or write a .png"
            )
        # Of the components of a state the first is the data.
        write_animation(self.path, trajectory[:, :, : samples.shape[1]], provenance, self.columns)


@dataclass(frozen=True)
class Npz(Destination):
    """One NumPy archive of all samples."""

    holds_trajectory: ClassVar[bool] = True

    def check(self, shape: Sequence[int], numbers: int = 0) -> None:
        _check_file(self.path, numbers)

    def open(
        self, indices: Sequence[int], provenance: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Sink]:
        return contextlib.nullcontext(_FileSink(indices, partial(write_npz, self.path)))


@dataclass(frozen=True)
class Folder(Destination):
    """A picture for each sample, written as they come."""

    def of_stage(self, number: int) -> Destination:
        return replace(self, path=self.path / f"stage-{number}")

    def check(self, shape: Sequence[int], numbers: int = 0) -> None:
        check_channels(shape[0])

    @contextlib.contextmanager
    def open(self, indices: Sequence[int], provenance: Mapping[str, Any]) -> Any:
        with SampleFolder(self.path, _located(provenance, indices)) as folder:
            yield _FolderSink(folder, indices)


def destination(path: str, columns: int | None = None) -> Destination:
    """Returns the destination that a path asks for by its suffix.

    `.png`, `.jpg` and `.jpeg` are a picture, `.gif` and `.webp` an animation of the trajectory, `.npz` an array; no
    suffix or a slash at the end is a folder.

    Args:
        path: where to write.
        columns: samples in a row of a grid.

    Raises:
        UsageError: for another suffix, or columns where there is no grid.
    """
    kind = _kind(path)
    if columns is None:
        return kind(Path(path))
    if not issubclass(kind, Grid):
        raise UsageError(f"{path} has no columns; leave them out, or write a .png")
    return kind(Path(path), checked_integer(columns, "columns", 1, what="is no number of samples in a row"))


_KINDS: dict[str, type[Destination]] = {
    ".png": PngGrid,
    ".jpg": JpegGrid,
    ".jpeg": JpegGrid,
    ".gif": Animation,
    ".webp": Animation,
    ".npz": Npz,
}


def _kind(path: str) -> type[Destination]:
    if not path.strip():
        raise UsageError("the output has no name; give for example samples.png")
    suffix = Path(path).suffix.lower()
    if path.endswith(os.sep) or not suffix or Path(path).is_dir():
        return Folder
    if suffix not in _KINDS:
        raise UsageError(
            f"{path}: unknown suffix {suffix!r}; end it in .png or .jpg for a grid, .gif or .webp for the way, "
            ".npz for an array, / for a folder of PNGs"
        )
    return _KINDS[suffix]


def _check_file(path: Path, numbers: int) -> None:
    # In float32, beside the copy that is written.
    check_memory(
        8 * numbers, f"all samples of one file, {path},", "ask for fewer, or for a folder of pictures"
    )
    with telling(path):
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is no file; choose another place")
        if not path.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent}; make it, or choose another place")
        probe = partial_name(path.resolve())
        probe.touch()
        probe.unlink()


def _located(provenance: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The provenance with the samples it is about."""
    return {**provenance, "n": len(indices), "indices": format_indices(indices)}


class _FileSink:
    """Keeps samples in memory, in the order of the indices, and writes them at the end."""

    def __init__(self, indices: Sequence[int], write: Callable[..., None]) -> None:
        self._indices = list(indices)
        self._place = {index: place for place, index in enumerate(indices)}
        self._write = write
        self._samples: Tensor | None = None
        self._trajectory: Tensor | None = None
        self._times: Sequence[float] | None = None

    def missing(self) -> list[int]:
        return self._indices

    def add(
        self,
        indices: Sequence[int],
        samples: Tensor,
        trajectory: Tensor | None = None,
        times: Sequence[float] | None = None,
    ) -> None:
        if self._samples is None:
            self._samples = torch.empty((len(self._indices), *samples.shape[1:]), dtype=torch.float32)
        places = [self._place[index] for index in indices]
        self._samples[places] = samples.float().cpu()
        if trajectory is not None:
            if self._trajectory is None:
                shape = (len(trajectory), len(self._samples), *trajectory.shape[2:])
                self._trajectory = torch.empty(shape, dtype=torch.float32)
            self._trajectory[:, places] = trajectory.float().cpu()
            self._times = times

    def finish(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        assert self._samples is not None
        kept = _located(provenance, self._indices)
        self._write(self._samples, kept, self._trajectory, self._times)
        return kept


class _FolderSink:
    """Writes samples into a folder as they come."""

    def __init__(self, folder: SampleFolder, indices: Sequence[int]) -> None:
        self._folder = folder
        self._missing = folder.missing(indices)

    def missing(self) -> Sequence[int]:
        return self._missing

    def add(
        self,
        indices: Sequence[int],
        samples: Tensor,
        trajectory: Tensor | None = None,
        times: Sequence[float] | None = None,
    ) -> None:
        self._folder.add(indices, samples)

    def finish(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        kept = _located(provenance, self._folder.drawn())
        if self._missing:
            self._folder.finish(kept)
        return kept
