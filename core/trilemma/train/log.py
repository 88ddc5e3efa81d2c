"""The log of a run: JSON lines, TensorBoard, and a progress bar."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from trilemma.errors import ModelError
from trilemma.files.partials import partial_name

# The key of a note that is written as the log of a run that was rolled back is opened: the step it was at.
ROLLED_BACK = "rolled_back_from"


class RunLog:
    """Writes one record each `log_every` steps to `log.jsonl` (and TensorBoard), and shows progress on stderr.

    A resumed run first drops the lines after its checkpoint, so that no step is logged twice.

    Args:
        folder: the run's folder.
        steps: total steps of the run.
        start: steps already done.
        batch: examples a step, over all processes.
        tensorboard: also write event files under `folder/tensorboard`.
        progress: show the bar.
    """

    def __init__(
        self, folder: Path, steps: int, start: int, batch: int, tensorboard: bool, progress: bool
    ) -> None:
        self._batch = batch
        self._path = folder / "log.jsonl"
        _drop_after(self._path, start)
        self._file: TextIO = self._path.open("a", encoding="utf-8")
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not progress, dynamic_ncols=True)
        self._mark = (time.perf_counter(), start)
        self._noted = ""

    def advance(self) -> None:
        """Counts one step as done."""
        self._bar.update()

    def record(self, step: int, losses: Mapping[str, float], **values: float) -> None:
        """Writes a record after `step` steps: losses by name, which the bar shows, and other values.

        Raises:
            ModelError: where the disk refuses.
        """
        now, (before, last) = time.perf_counter(), self._mark
        rate = (step - last) * self._batch / max(now - before, 1e-9)
        self._mark = (now, step)
        self._write(step, {**losses, **values, "images_per_second": round(rate, 1)})
        self._bar.set_postfix_str(f"{_shown(losses)}{self._noted}, {rate:.0f} images/s")

    def note(self, step: int, values: Mapping[str, float], **beside: Any) -> None:
        """Writes a line of its own after `step` steps, whose numbers the bar shows from then on.

        Args:
            step: steps that are done.
            values: numbers by name.
            beside: what else the line holds, such as how the numbers were found.

        Raises:
            ModelError: where the disk refuses.
        """
        self._write(step, values, beside)
        self._noted = f", {_shown(values)}"

    def numbers_of(self, step: int, **beside: Any) -> dict[str, float]:
        """Returns the numbers of the line that `note` wrote after so many steps with the same `beside`; {} for none."""
        for line in self._path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.pop("step") == step and all(record.pop(name, None) == beside[name] for name in beside):
                return dict(record)
        return {}

    def _write(self, step: int, values: Mapping[str, float], beside: Mapping[str, Any] | None = None) -> None:
        record = {"step": step, **values}
        try:
            self._file.write(json.dumps({**record, **(beside or {})}) + "\n")
            self._file.flush()
        except OSError as error:
            raise ModelError(
                f"cannot write {self._path}: {error.strerror or error}; free space or choose another --out"
            ) from error
        if self._writer is not None:
            for name, value in record.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Closes files and bar."""
        self._bar.close()
        # Closing tries to write the rest, which a full disk refuses again.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._writer is not None:
            self._writer.close()


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            if record["step"] < step or (record["step"] == step and ROLLED_BACK not in record):
                kept.append(line)
        except (ValueError, KeyError):
            continue
    partial = partial_name(path)
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)
