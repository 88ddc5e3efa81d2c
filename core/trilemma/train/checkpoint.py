"""Atomic, complete checkpoints of a training run, without pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trilemma.errors import ModelError

FORMAT = 1
_PREFIX = "step-"


@dataclass
class Checkpoint:
    """The whole state of a run after `step` optimizer steps.

    Attributes:
        step: optimizer steps done; it is also the position in the data and in the learning-rate schedule.
        recipe: fingerprint of the recipe.
        tensors: groups of tensors by name: model, ema, optimizer, rng.
        scalars: JSON-able values that are no tensors.
    """

    step: int
    recipe: str
    tensors: dict[str, dict[str, Tensor]]
    scalars: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes `folder/step-N` whole or not at all, then removes all but the newest `keep`.

    The files are written and synced under another name first; the rename is the commit.

    Raises:
        ModelError: where the disk refuses; nothing is left behind.
    """
    target = folder / f"{_PREFIX}{checkpoint.step:09d}"
    partial = folder / f".{target.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        flat = {
            f"{group}/{name}": tensor.detach().cpu().contiguous()
            for group, tensors in checkpoint.tensors.items()
            for name, tensor in tensors.items()
        }
        save_file(flat, partial / "state.safetensors")
        state = {
            "format": FORMAT,
            "step": checkpoint.step,
            "recipe": checkpoint.recipe,
            "scalars": checkpoint.scalars,
        }
        (partial / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        for path in (partial / "state.safetensors", partial / "state.json", partial):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot write checkpoint {target}: {reason}; free space or choose another --out"
        ) from error
    for stale in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(stale, ignore_errors=True)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def load_checkpoint(path: Path, recipe: str) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        ModelError: where it is damaged, of another format, or of another recipe.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        flat = load_file(path / "state.safetensors")
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"checkpoint {path} is damaged ({reason}); delete it to resume from the one before"
        ) from error
    if state["format"] != FORMAT:
        raise ModelError(
            f"checkpoint {path} has format {state['format']}, this version reads {FORMAT}; start anew"
        )
    if state["recipe"] != recipe:
        raise ModelError(
            f"checkpoint {path} was written under another recipe; restore that recipe or choose another --out"
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        group, _, name = key.partition("/")
        tensors.setdefault(group, {})[name] = tensor
    return Checkpoint(state["step"], state["recipe"], tensors, state["scalars"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as a flat dictionary of tensors."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
