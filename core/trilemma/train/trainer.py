"""The training loop."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma.errors import ModelError, UsageError
from trilemma.files.partials import remove_stale
from trilemma.interfaces.denoiser import Denoiser
from trilemma.machine.global_generators import seeded
from trilemma.models import card as model_directory
from trilemma.numerics.step_keys import step_generator, step_key
from trilemma.train.checkpoint import (
    Checkpoint,
    Identity,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    remove_stale_checkpoints,
    restore_optimizer,
    save_checkpoint,
)
from trilemma.train.conditions import ConditionSource
from trilemma.train.ema import Ema
from trilemma.train.interruption import Interrupted, Interruption
from trilemma.train.lock import locked
from trilemma.train.log import RunLog
from trilemma.train.preparation import fresh_denoiser, prepare
from trilemma.train.processes import Processes
from trilemma.train.recipe import Recipe
from trilemma.train.sample_grid import draw_sample_grid
from trilemma.train.schedule import learning_rate
from trilemma.train.validation import validation_loss

# Streams of keys.
OBJECTIVE, GLOBAL = 2, 3


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run: the model directory, the steps done, and the last logged values."""

    model: Path
    steps: int
    last: Mapping[str, float]


def train(
    recipe: Recipe, folder: Path, progress: bool = False, from_checkpoint: Path | None = None
) -> TrainingResult:
    """Trains a denoiser by a recipe, or resumes the run that `folder` holds, to the same weights.

    Every random draw is keyed by (seed, step), also draws from the global generators (dropout), whose states are
    restored afterwards. So weights, averages and the optimizer's state are the whole state of a run. A run that is
    killed at any moment and started again ends with the same weights, bit for bit on CPU with the same number of
    threads. The weights do not depend on grids, logs, checkpoints, the environment or the caller's draws. Checkpoints
    go to `folder/checkpoints`, the log to `folder/log.jsonl`, grids to `folder/samples`, the model to `folder/model`.

    Args:
        recipe: the model, the data and the training.
        folder: of the run; a lock keeps a second run out of it.
        progress: show a progress bar on stderr.
        from_checkpoint: a checkpoint of another run, or its folder, to go on from under this recipe. The network must
            be the same; learning rate, precision or data may differ.

    In the main thread the first SIGINT or SIGTERM ends the run after the step that it is at, with a checkpoint; the
    second one ends it at once.

    Raises:
        Interrupted: a KeyboardInterrupt, where a signal ended the run after a step.
        ModelError: where `folder` holds a run of another recipe, other data or other processes, or is in use, a
            checkpoint is damaged, a disk refuses, or loss or weights are no longer finite.
        PluginUnavailable: for components or packages that are not there.
        UsageError: for components that do not fit together.
    """
    with _own_surroundings():
        return _Run(recipe, folder, progress).run(from_checkpoint)


class _Run:
    def __init__(self, recipe: Recipe, folder: Path, progress: bool) -> None:
        self.recipe, self.folder = recipe, folder
        self.processes = Processes()
        self.main = self.processes.main
        self.progress = progress and self.main
        parts = prepare(recipe, folder, self.processes)
        self.data, self.objective, self.denoiser = parts.data, parts.objective, parts.denoiser
        self.card, self.order, self.precision = parts.card, parts.order, parts.precision
        self.validation = parts.validation
        self.identity = Identity(*parts.fingerprints, self.processes.world)
        self.processes.same(self.denoiser)
        if recipe.compile:
            self.denoiser.compile(dynamic=False)
        self.ema = Ema(self.denoiser, recipe.ema)
        settings = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(),
            lr=settings.lr,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
        )
        self.total = torch.zeros((), device=self.processes.device)
        self.since = 0
        self.origin: str | None = None

    def run(self, from_checkpoint: Path | None) -> TrainingResult:
        with self._own_folder():
            start = self._begin(from_checkpoint)
            log = self._open_log(start)
            last: dict[str, float] = {}
            try:
                with Interruption() as interruption:
                    for step in range(start, self.recipe.steps):
                        last |= self._advance(step, log)
                        self._end_where_asked(step + 1, interruption.asked)
            finally:
                if log is not None:
                    log.close()
            return TrainingResult(self._export(), self.recipe.steps, last)

    def _end_where_asked(self, done: int, asked: bool) -> None:
        """Ends the run after a step with a checkpoint; all processes after the same one."""
        if done == self.recipe.steps or not self.processes.any(asked):
            return
        if done % self.recipe.checkpoint_every:
            self._save(done)
        raise Interrupted(done, self.recipe.steps)

    def _advance(self, step: int, log: RunLog | None) -> dict[str, float]:
        """Takes one step with its checkpoints and grids; returns the values that are logged after it."""
        recipe, done = self.recipe, step + 1
        loss, norm = self._step(step)
        self.total += loss
        self.since += 1
        last: dict[str, float] = {}
        if done % recipe.log_every == 0 or done == recipe.steps:
            last = self._record(log, done, norm)
        if log is not None:
            log.advance()
        # Before the checkpoint, so that a run that was killed in between draws the grid again.
        if self.main and recipe.samples.every and done % recipe.samples.every == 0:
            self._draw(done)
        measured = done % recipe.validation.every == 0 or done == recipe.steps
        if self.main and self.validation is not None and measured:
            last |= self._validate(self.validation, log, done)
        if done % recipe.checkpoint_every == 0 or done == recipe.steps:
            self._save(done)
        return last

    def _step(self, step: int) -> tuple[Tensor, Tensor]:
        settings, device, rank = self.recipe.optimizer, self.processes.device, self.processes.rank
        rate = learning_rate(step, self.recipe.steps, settings.warmup, settings.lr, settings.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with seeded(step_key(self.recipe.seed, step, GLOBAL, rank), device):
            indices = self.order.indices(step)
            x0, _ = self.data.dataset.batch(indices)
            cond = self.data.take(indices)
            generator = step_generator(self.recipe.seed, step, OBJECTIVE, rank)
            self.denoiser.train()
            with self.precision.autocast():
                loss = self.objective.loss(self.denoiser, self.denoiser, x0.to(device), cond, generator)
            self.precision.backward(loss)
        parameters = list(self.denoiser.parameters())
        self.processes.average_gradients(parameters)
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.denoiser, step)
        return loss.detach(), norm

    def _record(self, log: RunLog | None, step: int, norm: Tensor) -> dict[str, float]:
        values = {
            "loss": float(self.processes.mean(self.total / self.since)),
            "grad_norm": float(norm),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
        }
        if not math.isfinite(values["loss"]):
            raise self._diverged(f"the loss is {values['loss']}", step)
        if log is not None:
            log.record(step, self.since * self.recipe.batch_size, **values)
        self.total.zero_()
        self.since = 0
        return values

    def _diverged(self, what: str, step: int) -> ModelError:
        found = list_checkpoints(self.folder / "checkpoints")
        cure = 'lower optimizer.lr or set precision = "no", and start again'
        # The oldest that is left: the newest may be one step before the end already.
        if found:
            cure += f" with another --out and --from-checkpoint {found[0]}"
        return ModelError(f"{what} at step {step}; {cure}")

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Locks the folder and removes files that killed runs left half-written."""
        with contextlib.ExitStack() as stack:
            self.processes.agree(lambda: self._take(stack))
            yield

    def _take(self, stack: contextlib.ExitStack) -> None:
        try:
            made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if made:
                stack.callback(_remove_empty, self.folder)
            stack.enter_context(locked(self.folder))
            remove_stale_checkpoints(self.folder / "checkpoints")
            remove_stale(self.folder / "model")
            remove_stale(self.folder / "log.jsonl")
        except OSError as error:
            raise ModelError(
                f"cannot write to {self.folder}: {error.strerror}; free space or choose another --out"
            ) from error

    def _open_log(self, start: int) -> RunLog | None:
        if not self.main:
            return None
        try:
            return RunLog(self.folder, self.recipe.steps, start, self.recipe.tensorboard, self.progress)
        except OSError as error:
            raise ModelError(
                f"cannot write to {self.folder}: {error.strerror}; free space or choose another --out"
            ) from error

    def _begin(self, other: Path | None) -> int:
        """Loads the newest checkpoint of this run, else the one to go on from; the steps done."""
        found = list_checkpoints(self.folder / "checkpoints")
        if found:
            checkpoint = load_checkpoint(found[-1])
            self.identity.check(checkpoint.identity, found[-1])
            if other is not None and checkpoint.scalars["origin"] != _origin(_newest(other)):
                raise ModelError(
                    f"{self.folder} holds a run that did not begin at {other}; choose another --out, or leave "
                    "--from-checkpoint out"
                )
            self._restore(checkpoint, found[-1])
            self.origin = checkpoint.scalars["origin"]
            return checkpoint.step
        if other is None:
            return 0
        other = _newest(other)
        checkpoint = load_checkpoint(other)
        if checkpoint.step >= self.recipe.steps:
            raise UsageError(
                f"checkpoint {other} has {checkpoint.step} steps done, the recipe has {self.recipe.steps}; set more"
            )
        self._restore(checkpoint, other)
        self.origin = _origin(other)
        # This run, too, can then be killed at any moment.
        self._save(checkpoint.step)
        return checkpoint.step

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        try:
            self.denoiser.load_state_dict(checkpoint.tensors["model"])
            self.ema.load_state_dict(checkpoint.tensors["ema"])
            restore_optimizer(self.optimizer, checkpoint.tensors.get("optimizer", {}))
            self.precision.load_state_dict(checkpoint.scalars["precision"])
            self.total.copy_(checkpoint.tensors["log"]["total"])
            self.since = int(checkpoint.scalars["since"])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ModelError(
                f"checkpoint {path} is of another network: {reason}; restore its recipe's [denoiser]"
            ) from error

    def _save(self, step: int) -> None:
        total = self.processes.mean(self.total)
        self.total.copy_(total)
        if self.main:
            tensors = {
                "model": self.denoiser.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": optimizer_tensors(self.optimizer),
                "log": {"total": total},
            }
            scalars = {
                "recipe": self.recipe.to_dict(),
                "origin": self.origin,
                "since": self.since,
                "precision": self.precision.state_dict(),
            }
            checkpoint = Checkpoint(step, self.identity, tensors, scalars)
            if not checkpoint.is_finite():
                raise self._diverged("loss or weights are no longer finite", step)
            save_checkpoint(self.folder / "checkpoints", checkpoint, self.recipe.keep)
        self.processes.wait()

    def _draw(self, step: int) -> None:
        """A failed picture is reported, never by the loss of the run."""
        path = self.folder / "samples" / f"step-{step:09d}.png"
        try:
            draw_sample_grid(self._averaged(), self.recipe.samples, self.recipe.seed, path)
        except Exception as error:
            reason = " ".join(str(error).split())
            tqdm.write(f"no sample grid at step {step}: {reason}", file=sys.stderr)

    def _validate(self, data: ConditionSource, log: RunLog | None, step: int) -> dict[str, float]:
        recipe = self.recipe
        loss = validation_loss(
            self._averaged(),
            data,
            self.objective,
            recipe.seed,
            recipe.batch_size,
            recipe.validation.n,
            self.precision,
            self.processes.device,
        )
        if log is not None:
            log.note(step, validation_loss=loss)
        return {"validation_loss": loss}

    def _averaged(self) -> Denoiser:
        """The network with the averaged weights, to look at."""
        averaged = fresh_denoiser(self.card, self.processes.device)
        averaged.load_state_dict(self.ema.state_dict())
        averaged.eval().requires_grad_(False)
        return averaged

    def _export(self) -> Path:
        target = self.folder / "model"
        if self.main:
            dtype = getattr(torch, self.recipe.weights_dtype)
            tensors = {
                name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                for name, tensor in self.ema.state_dict().items()
            }
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise ModelError(
                        f"{name} does not fit into {self.recipe.weights_dtype}; "
                        'set weights_dtype = "float32" and run again, nothing is trained anew'
                    )
            model_directory.save_model(target, self.card, tensors)
        self.processes.wait()
        return target


@contextlib.contextmanager
def _own_surroundings() -> Iterator[None]:
    """Gradients on, and no default device or autocast of the caller's."""
    with torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
        accelerator = torch.accelerator.current_accelerator()
        for kind in {"cpu", *([accelerator.type] if accelerator is not None else [])}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _newest(place: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest of a run."""
    if (place / "state.json").is_file():
        return place
    found = list_checkpoints(place / "checkpoints") or list_checkpoints(place)
    if not found:
        raise UsageError(f"there is no checkpoint at {place}; give a folder step-N, or that of a run")
    return found[-1]


def _origin(path: Path) -> str:
    """Returns the origin of a run that goes on from a checkpoint: recipe, data and step."""
    checkpoint = load_checkpoint(path)
    return f"{checkpoint.identity.recipe}:{checkpoint.identity.data}:{checkpoint.step}"


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
