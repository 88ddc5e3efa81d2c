"""Atomic, complete checkpoints of a training run, without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from trilemma.errors import ModelError
from trilemma.files.partials import PARTIAL, held, partial_name, remove_stale
from trilemma.interfaces.update import MODEL

FORMAT = 3
_PREFIX = "step-"
_TENSORS, _STATE = "state.safetensors", "state.json"
# Bytes of the JSON.
_LARGEST_STATE = 1 << 24


@dataclass(frozen=True)
class Identity:
    """The identity of a run, which decides its weights: a checkpoint is resumed only where all of it is the same.

    Attributes:
        recipe: fingerprint of the recipe.
        data: fingerprint of the data set.
        processes: how many there are.
        frozen: fingerprint of the weights that never learn, such as a teacher's, which no checkpoint holds.
    """

    recipe: str
    data: str
    processes: int
    frozen: str = ""

    def check(self, found: Identity, path: Path) -> None:
        """Raises ModelError where the identity found in a checkpoint is another one."""
        if found.recipe != self.recipe:
            raise ModelError(
                f"checkpoint {path} was written under another recipe; restore that recipe or choose another --out"
            )
        if found.data != self.data:
            raise ModelError(
                f"checkpoint {path} was written with other data: classes, values, images or the encoder changed; "
                "restore them or choose another --out"
            )
        if found.processes != self.processes:
            raise ModelError(
                f"checkpoint {path} was written by {found.processes} process(es), this run has {self.processes}; "
                f"launch {found.processes}, or choose another --out"
            )
        if found.frozen != self.frozen:
            raise ModelError(
                f"checkpoint {path} was written with another teacher or other frozen weights; restore them or choose "
                "another --out"
            )


@dataclass
class Checkpoint:
    """The whole state of a run after `step` optimizer steps.

    Attributes:
        step: optimizer steps done; it is also the position in the data and in the learning-rate schedule.
        identity: must equal that of a run that resumes from it.
        tensors: groups of tensors by name: `part.NAME` and `ema.NAME` of each part that learns or is averaged,
            `optimizer.NAME` of each update, and `log`.
        scalars: JSON-able values that are no tensors.
    """

    step: int
    identity: Identity
    tensors: dict[str, dict[str, Tensor]]
    scalars: dict[str, Any] = field(default_factory=dict)

    def is_finite(self) -> bool:
        """Returns whether every number in it is finite."""
        found = [
            tensor.isfinite().all()
            for tensors in self.tensors.values()
            for tensor in tensors.values()
            if tensor.is_floating_point() or tensor.is_complex()
        ]
        return all(bool(answer) for answer in found)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes `folder/step-N` whole or not at all, then removes all but the newest `keep`.

    The files are written and synced under another name first; the rename is the commit. The JSON holds the sha256 of
    the tensors, and of itself.

    Raises:
        ModelError: where the disk refuses; nothing is left behind.
    """
    target = checkpoint_path(folder, checkpoint.step)
    partial = partial_name(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        with held(partial):
            save_file(_apart(checkpoint.tensors), partial / _TENSORS)
            (partial / _STATE).write_text(json.dumps(_state(checkpoint, partial), indent=1), encoding="utf-8")
            for path in (partial / _TENSORS, partial / _STATE, partial):
                _sync(path)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot write checkpoint {target}: {reason}; free space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for stale in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(stale, ignore_errors=True)
    return target


def checkpoint_path(folder: Path, step: int) -> Path:
    """Returns the place of the checkpoint of a step."""
    return folder / f"{_PREFIX}{step:09d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the complete checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if (path / _STATE).is_file()]
    return sorted(
        (path for path in found if _step_of(path) is not None), key=lambda path: _step_of(path) or 0
    )


def remove_stale_checkpoints(folder: Path) -> None:
    """Removes what killed writers left half-written in a folder of checkpoints."""
    for left in folder.glob(f".{_PREFIX}*{PARTIAL}"):
        name = left.name.removeprefix(".").rpartition(".")[0].rpartition(".")[0].rpartition(".")[0]
        remove_stale(folder / name)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint and verifies its checksums.

    Raises:
        ModelError: where it is damaged or of another format.
    """
    with _damaged(path):
        state = json.loads(_regular(path / _STATE, _LARGEST_STATE).read_text(encoding="utf-8"))
        written = state.get("format")
    if written not in (2, FORMAT):
        raise ModelError(
            f"checkpoint {path} has format {str(written)[:20]}, this version reads {FORMAT}; choose another --out"
        )
    with _damaged(path):
        if state.pop("sha256") != _digest_of(state):
            raise ValueError(f"the checksum of {_STATE} does not fit")
        # The file is read, not mapped: the run goes on with the verified bytes, whatever happens to the file.
        content = _regular(path / _TENSORS).read_bytes()
        if state["tensors_sha256"] != hashlib.sha256(content).hexdigest():
            raise ValueError(f"the checksum of {_TENSORS} does not fit")
        flat = load(content)
        tensors: dict[str, dict[str, Tensor]] = {}
        for key, tensor in flat.items():
            group, _, name = key.partition("/")
            tensors.setdefault(group, {})[name] = tensor
        if written == 2:
            tensors, state["scalars"] = _of_one_network(tensors, state["scalars"])
        return Checkpoint(state["step"], Identity(**state["identity"]), tensors, state["scalars"])


def _of_one_network(
    tensors: dict[str, dict[str, Tensor]], scalars: dict[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Returns the content of a checkpoint of format 2, which knew one network and one loss, as one of today's."""
    groups = {f"part.{MODEL}": "model", f"ema.{MODEL}": "ema", f"optimizer.{MODEL}": "optimizer"}
    renamed = {new: tensors[old] for new, old in groups.items() if old in tensors}
    precision, since = {MODEL: scalars["precision"]}, {"loss": scalars["since"]}
    return renamed | {"log": {"loss": tensors["log"]["total"]}}, scalars | {
        "precision": precision,
        "since": since,
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's per-parameter state as a flat dictionary of tensors."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the state that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _apart(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors by group/name, none sharing memory with another: tied weights are written once for each name."""
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            copy = tensor.detach().cpu().contiguous()
            place = copy.untyped_storage().data_ptr()
            flat[f"{group}/{name}"] = copy.clone() if place in seen else copy
            seen.add(place)
    return flat


def _state(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "identity": vars(checkpoint.identity),
        "scalars": checkpoint.scalars,
        "tensors_sha256": _file_digest(folder / _TENSORS),
    }
    return {**state, "sha256": _digest_of(state)}


def _digest_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regular(path: Path, most: int | None = None) -> Path:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or (most is not None and found.st_size > most):
        raise ValueError(f"{path.name} is no file that a run wrote")
    return path


def _step_of(path: Path) -> int | None:
    number = path.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() and len(number) < 20 else None


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        Exception,
        RecursionError,
    ) as error:
        # Bytes of any kind can make the readers raise nearly anything.
        reason = (" ".join(str(error).split()) or type(error).__name__)[:80]
        raise ModelError(
            f"checkpoint {path} is damaged ({reason}); delete it to resume from the one before"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
