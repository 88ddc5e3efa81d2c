"""The training loop."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import trilemma
from trilemma import lookup, model_directory
from trilemma.dataset import Dataset
from trilemma.denoiser import Denoiser
from trilemma.errors import ModelError, TrilemmaError, UsageError
from trilemma.objective import Objective
from trilemma.train.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from trilemma.train.data_order import DataOrder, step_generator
from trilemma.train.ema import Ema
from trilemma.train.log import RunLog
from trilemma.train.recipe import Recipe
from trilemma.train.sample_grid import draw_sample_grid
from trilemma.train.schedule import learning_rate


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run left: the model directory, the steps done, and the last logged values."""

    model: Path
    steps: int
    last: Mapping[str, float]


def train(recipe: Recipe, folder: Path, progress: bool = False) -> TrainingResult:
    """Trains a denoiser by a recipe, or resumes the run that `folder` holds, to the same weights.

    Every random draw is keyed by (seed, step), so that together with weights, averages, optimizer state and torch's
    own generator state (dropout) a checkpoint is the whole run: killed at any moment and started again, it ends
    with the same weights, bit for bit on CPU with the same number of threads. Checkpoints go to
    `folder/checkpoints`, the log to `folder/log.jsonl`, grids to `folder/samples`, the model to `folder/model`.

    Raises:
        ModelError: where `folder` holds a run of another recipe, a disk refuses, or the loss is no longer finite.
        UsageError: for components that do not exist or do not fit.
    """
    return _Run(recipe, folder, progress).run()


class _Run:
    def __init__(self, recipe: Recipe, folder: Path, progress: bool) -> None:
        from accelerate import Accelerator

        self.recipe, self.folder = recipe, folder
        self.accelerator = Accelerator(mixed_precision=recipe.precision)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.main = self.accelerator.is_main_process
        self.progress = progress and self.main
        self.dataset = cast(Dataset, lookup.build("dataset", recipe.dataset.spec)[0])
        self.objective = cast(Objective, lookup.build("objective", recipe.objective.spec)[0])
        self.card = self._card()
        self.denoiser = model_directory.build_denoiser(self.card, recipe.seed)
        if recipe.compile:
            # Inductor's backward under autocast on a CPU gives most convolutions a gradient of 0.
            if recipe.precision != "no" and self.accelerator.device.type == "cpu":
                raise UsageError(
                    f'recipe: compile = true loses gradients with precision = "{recipe.precision}" on a CPU; '
                    'set compile = false or precision = "no"'
                )
            self.denoiser.compile(dynamic=False)
        self.order = DataOrder(len(self.dataset), recipe.batch_size, recipe.seed, self.rank, self.world)
        self.ema = Ema(self.denoiser, recipe.ema)
        settings = recipe.optimizer
        optimizer = torch.optim.AdamW(
            self.denoiser.parameters(),
            lr=settings.lr,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
        )
        self.network, self.optimizer = self.accelerator.prepare(self.denoiser, optimizer)
        self.ema.to(self.accelerator.device)
        self.fingerprint = recipe.fingerprint()

    def run(self) -> TrainingResult:
        _seed_everything(self.recipe.seed, self.rank)
        start = self._resume()
        log = self._open_log(start)
        last: dict[str, float] = {}
        total = torch.zeros((), device=self.accelerator.device)
        since = 0
        try:
            for step in range(start, self.recipe.steps):
                loss, norm = self._step(step)
                total += loss
                since += 1
                done = step + 1
                if done % self.recipe.log_every == 0 or done == self.recipe.steps:
                    last = self._record(log, done, total / since, norm, since)
                    total.zero_()
                    since = 0
                if log is not None:
                    log.advance()
                if done % self.recipe.checkpoint_every == 0 or done == self.recipe.steps:
                    self._save(done)
                every = self.recipe.samples.every
                if self.main and every and done % every == 0:
                    self._draw(done)
        finally:
            if log is not None:
                log.close()
        return TrainingResult(self._export(), self.recipe.steps, last)

    def _step(self, step: int) -> tuple[Tensor, Tensor]:
        settings, device = self.recipe.optimizer, self.accelerator.device
        rate = learning_rate(step, self.recipe.steps, settings.warmup, settings.lr, settings.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x0, labels = self.dataset.batch(self.order.indices(step))
        cond = {"class": labels.to(device)} if "class" in self.denoiser.conditions else {}
        generator = step_generator(self.recipe.seed, step, stream=2, rank=self.rank)
        self.network.train()
        with self.accelerator.autocast():
            loss = self.objective.loss(self.network, self.denoiser, x0.to(device), cond, generator)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.denoiser, step)
        return loss.detach(), cast(Tensor, norm)

    def _record(
        self, log: RunLog | None, step: int, loss: Tensor, norm: Tensor, since: int
    ) -> dict[str, float]:
        values = {
            "loss": float(self.accelerator.reduce(loss, "mean")),
            "grad_norm": float(norm),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
        }
        if values["loss"] != values["loss"] or values["loss"] in (float("inf"), float("-inf")):
            raise ModelError(
                f'the loss is {values["loss"]} at step {step}; lower optimizer.lr or set precision = "no", '
                "then resume from the last checkpoint"
            )
        if log is not None:
            log.record(step, since * self.recipe.batch_size, **values)
        return values

    def _open_log(self, start: int) -> RunLog | None:
        if not self.main:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return RunLog(self.folder, self.recipe.steps, start, self.recipe.tensorboard, self.progress)
        except OSError as error:
            raise ModelError(
                f"cannot write to {self.folder}: {error.strerror}; choose another --out"
            ) from error

    def _resume(self) -> int:
        found = list_checkpoints(self.folder / "checkpoints")
        if not found:
            return 0
        checkpoint = load_checkpoint(found[-1], self.fingerprint)
        self.denoiser.load_state_dict(checkpoint.tensors["model"])
        self.ema.load_state_dict(checkpoint.tensors["ema"])
        restore_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        torch.set_rng_state(checkpoint.tensors["rng"][f"torch-{self.rank}"])
        return checkpoint.step

    def _save(self, step: int) -> None:
        states = _gather_rng(self.accelerator, self.rank)
        self.accelerator.wait_for_everyone()
        if self.main:
            tensors = {
                "model": self.denoiser.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": optimizer_tensors(self.optimizer),
                "rng": states,
            }
            save_checkpoint(
                self.folder / "checkpoints",
                Checkpoint(step, self.fingerprint, tensors, {"recipe": self.recipe.to_dict()}),
                self.recipe.keep,
            )

    def _draw(self, step: int) -> None:
        """A failed picture is reported by the log, never by the loss of the run."""
        averaged = self._averaged()
        path = self.folder / "samples" / f"step-{step:09d}.png"
        try:
            draw_sample_grid(averaged, self.recipe.samples, self.recipe.seed, path)
        except TrilemmaError as error:
            self.accelerator.print(f"no sample grid at step {step}: {error}")

    def _averaged(self) -> Denoiser:
        averaged = model_directory.build_denoiser(self.card, self.recipe.seed)
        averaged.load_state_dict(self.ema.state_dict())
        return averaged.to(self.accelerator.device).eval().requires_grad_(False)

    def _export(self) -> Path:
        target = self.folder / "model"
        if self.main:
            dtype = getattr(torch, self.recipe.weights_dtype)
            tensors = {
                name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                for name, tensor in self.ema.state_dict().items()
            }
            model_directory.save_model(target, self.card, tensors)
        self.accelerator.wait_for_everyone()
        return target

    def _card(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "model": {"name": recipe.name, "summary": recipe.summary},
            "process": {"spec": recipe.process.spec},
            "denoiser": {
                "spec": recipe.denoiser.spec,
                "parameterization": recipe.denoiser.parameterization,
                "options": dict(recipe.denoiser.options),
            },
            "data": {
                "shape": list(self.dataset.shape),
                "range": [-1.0, 1.0],
                "classes": list(self.dataset.classes),
                "dataset": recipe.dataset.spec,
            },
            "sampling": dataclasses.asdict(recipe.sampling),
            "evaluation": dict(recipe.evaluation),
            "provenance": {
                "recipe_sha256": recipe.fingerprint(),
                "objective": recipe.objective.spec,
                "steps": recipe.steps,
                "batch_size": recipe.batch_size,
                "seed": recipe.seed,
                "trilemma": trilemma.__version__,
                "torch": torch.__version__,
            },
        }


def _seed_everything(seed: int, rank: int) -> None:
    """Dropout draws from torch's own generator; everything else is keyed by step."""
    torch.manual_seed(seed + rank)
    random.seed(seed + rank)
    os.environ.setdefault("PYTHONHASHSEED", str(seed))


def _gather_rng(accelerator: Any, rank: int) -> dict[str, Tensor]:
    from accelerate.utils import gather_object

    gathered = gather_object([(f"torch-{rank}", torch.get_rng_state())])
    return dict(gathered)
