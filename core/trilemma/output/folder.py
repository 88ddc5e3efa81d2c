"""A folder of pictures, one for each sample. It grows as they are drawn, and an interrupted run can be continued."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trilemma.errors import OutputError
from trilemma.files.partials import PARTIAL, partial_name
from trilemma.files.regular import open_regular, read_text
from trilemma.numerics.index_ranges import IndexRanges
from trilemma.output.atomic import replacing, sync, sync_folder, telling
from trilemma.output.picture import encode_png, to_bytes
from trilemma.output.provenance_json import FILE, LIMIT, to_json

# The parts of a provenance that decide the picture of a sample index; all pictures in a folder agree in them.
IDENTITY = (
    "model",
    "sampler",
    "guidance",
    "guiding",
    "stages",
    "process",
    "steps",
    "cond",
    "encoders",
    "seed",
    "noise",
    "latent",
    "start",
    "known",
    "deterministic",
    "dtype",
    "network_dtype",
)

_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_PNG_ENDS = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class SampleFolder:
    """A folder with `00000017.png` for sample 17 and `provenance.json`, open for writing.

    Use it as a context manager; only one process may have it open. Pictures appear whole, a batch at a time,
    and one that is there already is kept: an interrupted run is continued by drawing `missing`.

    Args:
        path: the folder; made where it is not there.
        provenance: what makes the samples.

    Raises:
        OutputError: for a folder that holds something else, samples of another provenance, or is in use, and where
            the disk refuses.
    """

    def __init__(self, path: str | Path, provenance: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._provenance = provenance
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SampleFolder:
        with contextlib.ExitStack() as stack, telling(self.path):
            self._make(stack)
            stack.enter_context(_locked(self.path))
            self._take_over(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def missing(self, indices: Sequence[int]) -> Sequence[int]:
        """Returns those of the indices whose picture is missing or not whole."""
        ranges = IndexRanges.of(indices)
        if ranges is None:
            return [index for index in indices if not is_whole_png(self.picture(index))]
        there = (index for index in self.drawn() if index in ranges)
        return ranges.without(index for index in there if is_whole_png(self.picture(index)))

    def add(self, indices: Sequence[int], samples: Tensor) -> None:
        """Writes samples [b, C, H, W] in [−1, 1]; the pictures appear together once all are on the disk.

        Raises:
            OutputError: for samples that are not finite, or where the disk refuses; none of them is left behind.
        """
        pictures = [self.picture(index) for index in indices]
        partials = [partial_name(picture) for picture in pictures]
        with contextlib.ExitStack() as stack, telling(self.path):
            for index, partial, image in zip(indices, partials, to_bytes(samples), strict=True):
                stack.callback(partial.unlink, missing_ok=True)
                partial.write_bytes(encode_png(image, self._provenance_of(index)))
            # Pictures appear only now, once the disk has taken all of them.
            for partial in partials:
                sync(partial)
            for partial, picture in zip(partials, pictures, strict=True):
                partial.replace(picture)
            sync_folder(self.path)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Writes the final provenance."""
        with replacing(self.path / FILE) as file:
            file.write(to_json(provenance, indent=2).encode() + b"\n")

    def picture(self, index: int) -> Path:
        """Returns the path of a sample's picture."""
        return self.path / f"{index:08d}.png"

    def _provenance_of(self, index: int) -> dict[str, Any]:
        """Returns the provenance of one sample: the identity of the folder with the sample's own conditions."""
        found = {key: self._provenance[key] for key in IDENTITY if key in self._provenance}
        cond = found.get("cond") or {}
        own = {
            name: value[index % len(value)] if isinstance(value, list) else value
            for name, value in cond.items()
        }
        return {**found, "cond": own, "index": index}

    def drawn(self) -> list[int]:
        """Returns the indices of the pictures in the folder, rising."""
        return sorted(int(path.stem) for path in self.path.glob("*.png") if path.stem.isdecimal())

    def _make(self, stack: contextlib.ExitStack) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is no folder; choose another place")
        if not self.path.parent.is_dir():
            raise OutputError(f"there is no folder {self.path.parent}; make it, or choose another place")
        if not self.path.exists():
            self.path.mkdir()
            stack.callback(_remove_empty, self.path)

    def _take_over(self, stack: contextlib.ExitStack) -> None:
        """Checks that the content of the folder fits the samples to come, and begins it where it is empty."""
        # A process that was killed left these: the lock is ours.
        for left in self.path.glob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)
        record = self.path / FILE
        if os.path.lexists(record):
            _check_same(self.path, _read(record), json.loads(to_json(self._provenance)))
        elif any(self.path.iterdir()):
            raise OutputError(f"{self.path} holds files but no {FILE}; choose a new or an empty folder")
        else:
            self.finish(self._provenance)
            stack.callback(self._forget_if_none)

    def _forget_if_none(self) -> None:
        """Removes a folder that a failure left without a picture."""
        if not self.drawn():
            (self.path / FILE).unlink(missing_ok=True)


def is_whole_png(path: Path) -> bool:
    """Returns whether a file begins and ends as a PNG does."""
    try:
        with open_regular(path) as file:
            if file.read(len(_PNG_BEGINS)) != _PNG_BEGINS:
                return False
            file.seek(-len(_PNG_ENDS), os.SEEK_END)
            return file.read() == _PNG_ENDS
    except OSError:
        return False


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(record, LIMIT))
    except OSError as error:
        raise OutputError(
            f"cannot read {record}: {error.strerror}; choose another folder, or delete this one"
        ) from error
    except (ValueError, RecursionError) as error:
        raise OutputError(
            f"{record} is damaged: {error}; choose another folder, or delete this one"
        ) from error
    if not isinstance(found, dict):
        raise OutputError(f"{record} is no provenance; choose another folder, or delete this one")
    return found


def _check_same(path: Path, there: Mapping[str, Any], coming: Mapping[str, Any]) -> None:
    for key in IDENTITY:
        if there.get(key) != coming.get(key):
            raise OutputError(
                f"{path} holds samples of another run: {key} is {_shown(there.get(key))} there, "
                f"{_shown(coming.get(key))} now; choose another folder, delete this one, or ask for the same {key}"
            )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:99] + "…"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, where its file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another process is writing into {folder}; wait for it, or choose another folder"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
