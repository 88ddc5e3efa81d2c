"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from trilemma.errors import ModelError, UsageError
from trilemma.files.partials import remove_stale
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.update import MODEL, loss_and_scalars
from trilemma.machine.global_generators import seeded
from trilemma.models import card as model_directory
from trilemma.models.places import model_path
from trilemma.numerics.step_keys import STREAMS, step_generator, step_key
from trilemma.train.checkpoint import (
    Checkpoint,
    Identity,
    list_checkpoints,
    load_checkpoint,
    remove_stale_checkpoints,
    save_checkpoint,
)
from trilemma.train.evaluation import evaluated
from trilemma.train.examples import Examples, Reader
from trilemma.train.interruption import Interrupted, Interruption
from trilemma.train.learner import Learner
from trilemma.train.lock import locked
from trilemma.train.log import ROLLED_BACK, RunLog
from trilemma.train.log_names import named
from trilemma.train.meter import Meter
from trilemma.train.precision import Precision
from trilemma.train.preparation import fresh_model, prepare
from trilemma.train.processes import Processes
from trilemma.train.recipe import INSIDE, Recipe
from trilemma.train.rollback import LOWER_RATE, Diverged, Rollback
from trilemma.train.sample_grid import draw_sample_grid
from trilemma.train.validation import validation_losses

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
    """Trains a model by a recipe, or resumes the run that `folder` holds, to the same weights.

    Every random draw is keyed by (seed, step), also draws from the global generators (dropout), whose states are
    restored afterwards. So weights, averages and the optimizers' states are the whole state of a run. A run that is
    killed at any moment and started again ends with the same weights, bit for bit on CPU with the same number of
    threads. The weights do not depend on grids, logs, checkpoints, the environment or the caller's draws. Checkpoints
    go to `folder/checkpoints`, the log to `folder/log.jsonl`, grids to `folder/samples`, the model to `folder/model`.

    Args:
        recipe: the model, the data and the training.
        folder: of the run; a lock keeps a second run out of it.
        progress: show a progress bar on stderr.
        from_checkpoint: a checkpoint of another run, or its folder, to go on from under this recipe. The network must
            be the same; learning rate, precision or data may differ.

    Where the objective bounds numbers of its log, a run in which one is beyond its bound, or not finite, goes back to
    its last checkpoint once, with half the learning rate from there on; the checkpoints and the log say so.

    In the main thread the first SIGINT or SIGTERM ends the run after the step that it is at, with a checkpoint; the
    second one ends it at once.

    Raises:
        Interrupted: a KeyboardInterrupt, where a signal ended the run after a step.
        ModelError: where `folder` holds a run of another recipe, other data or other processes, or is in use, a
            checkpoint is damaged, a disk refuses, or the run has diverged: loss or weights are no longer finite, or a
            number is beyond its bound again after a rollback.
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
        prepared = prepare(recipe, folder, self.processes)
        self.objective, self.card, self.order = prepared.objective, prepared.card, prepared.order
        self.parts, self.coder_card = prepared.parts, prepared.coder_card
        self.data, self.validation = prepared.data, prepared.validation
        frozen = self.parts.frozen_fingerprint()
        self.identity = Identity(*prepared.fingerprints, self.processes.world, frozen)
        for module in self.parts.modules.values():
            self.processes.same(module)
        if recipe.compile:
            self.parts.model.compile(dynamic=False)
        self.parts.average(recipe.ema, recipe.ema_warmup)
        self.learners = [
            Learner(
                update,
                self.parts,
                recipe.optimizer.of(update),
                Precision(recipe.precision, self.processes.device),
                self.processes,
            )
            for update in self.parts.updates
        ]
        self.meter = Meter(self.processes)
        self.bounds = dict(prepared.objective.bounds())
        self.rollback: Rollback | None = None
        self.origin: str | None = None

    def run(self, from_checkpoint: Path | None) -> TrainingResult:
        with self._own_folder():
            try:
                return self._run_on(self._begin(from_checkpoint))
            except Diverged as found:
                start = self._roll_back(found)
            try:
                return self._run_on(start)
            except Diverged as again:
                raise self._failure(again) from again

    def _run_on(self, start: int) -> TrainingResult:
        """Takes the steps from `start` to the end, and writes the model."""
        log, last = self._open_log(start), dict[str, float]()
        try:
            with Interruption() as interruption:
                for step in range(start, self.recipe.steps):
                    last |= self._advance(step, log)
                    self._end_where_asked(step + 1, interruption.asked)
            model = self._export()
            if self.main and log is not None and self.recipe.measured:
                last |= self._measure(model, log)
            self.processes.wait()
        finally:
            if log is not None:
                log.close()
        return TrainingResult(model, self.recipe.steps, last)

    def _roll_back(self, found: Diverged) -> int:
        """Restores the last checkpoint, with a lower learning rate from there on; returns its step.

        Raises:
            ModelError: where the run was rolled back before, or its objective bounds nothing.
        """
        saved = list_checkpoints(self.folder / "checkpoints")
        if self.rollback is not None or not self.bounds or not saved:
            raise self._failure(found) from found
        path = saved[-1]
        checkpoint = load_checkpoint(path)
        self._restore(checkpoint, path)
        self.rollback = Rollback(checkpoint.step, found.step)
        # From here on a run that is killed resumes with the lower rate.
        self._save(checkpoint.step)
        if self.main:
            tqdm.write(f"{found}: {self.rollback}", file=sys.stderr)
        return checkpoint.step

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
        norms = self._step(step)
        last: dict[str, float] = {}
        if done % recipe.log_every == 0 or done == recipe.steps:
            last = self._record(log, done, norms)
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

    def _step(self, step: int) -> dict[str, Tensor]:
        """Makes the updates of a step that are due; returns the norms of their gradients by the update's name."""
        rank = self.processes.rank
        with seeded(step_key(self.recipe.seed, step, GLOBAL, rank), self.processes.device):
            examples = self.data.read(self.order.indices(step))
        norms = {}
        for index, learner in enumerate(self.learners):
            learner.set_rate(step, self.recipe.steps, 1.0 if self.rollback is None else LOWER_RATE)
            if learner.update.due(step):
                norms[learner.update.name] = self._update(step, index, examples)
        self.processes.share_buffers(self.parts.living.values())
        for name, average in self.parts.averages.items():
            average.update(self.parts.modules[name], step)
        return norms

    def _update(self, step: int, index: int, examples: Examples) -> Tensor:
        """Makes one update; returns the norm of its gradients."""
        seed, rank, stream = self.recipe.seed, self.processes.rank, STREAMS * index
        learner = self.learners[index]
        update = learner.update
        self.parts.listen(update)
        with seeded(step_key(seed, step, GLOBAL + stream, rank), self.processes.device):
            generator = step_generator(seed, step, OBJECTIVE + stream, rank)
            self.parts.train()
            with learner.precision.autocast():
                found = self.objective.update_loss(update, examples.step(self.parts.modules, generator, step))
                loss, scalars = loss_and_scalars(found)
            if not loss.requires_grad:
                raise UsageError(
                    f"update {update.name}: its loss depends on none of {', '.join(update.learns)}; correct it"
                )
            learner.precision.backward(loss)
        self.meter.add(named(self.parts.updates, update, {"loss": loss, **scalars}))
        return learner.learn()

    def _check_bounds(self, step: int) -> None:
        """Raises Diverged where the mean of a number since the last line of the log is beyond its bound, or NaN."""
        means = self.meter.means(self.bounds)
        for name, bound in self.bounds.items():
            if not means.get(name, 0.0) <= bound:
                raise Diverged(f"the {name.replace('_', ' ')} is {means[name]:.4g}, beyond {bound:g},", step)

    def _record(self, log: RunLog | None, step: int, norms: Mapping[str, Tensor]) -> dict[str, float]:
        self._check_bounds(step)
        losses = self.meter.means()
        self.meter.clear()
        updates, beside = self.parts.updates, dict[str, float]()
        for learner in self.learners:
            update, norm = learner.update, norms.get(learner.update.name)
            values = {} if norm is None else {"grad_norm": float(norm)}
            beside |= named(updates, update, {**values, "lr": learner.rate})
            (name,) = named(updates, update, {"loss": 0})
            if not math.isfinite(losses.get(name, 0)):
                raise Diverged(f"the {name.replace('_', ' ')} is {losses[name]}", step)
        if log is not None:
            log.record(step, losses, **beside)
        return {**losses, **beside}

    def _failure(self, diverged: Diverged) -> ModelError:
        found = list_checkpoints(self.folder / "checkpoints")
        cure = 'lower optimizer.lr or set precision = "no", and start again'
        # The oldest that is left: the newest may be one step before the end already.
        if found:
            cure += f" with another --out and --from-checkpoint {found[0]}"
        again = "" if self.rollback is None else f", after a rollback from step {self.rollback.diverged}"
        return ModelError(f"{diverged}{again}; {cure}")

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
            remove_stale(self.folder / INSIDE)
            remove_stale(self.folder / "log.jsonl")
        except OSError as error:
            raise ModelError(
                f"cannot write to {self.folder}: {error.strerror}; free space or choose another --out"
            ) from error

    def _open_log(self, start: int) -> RunLog | None:
        if not self.main:
            return None
        try:
            recipe = self.recipe
            log = RunLog(
                self.folder, recipe.steps, start, recipe.batch_size, recipe.tensorboard, self.progress
            )
            if self.rollback is not None and self.rollback.to == start:
                log.note(start, {ROLLED_BACK: self.rollback.diverged})
            return log
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
            rollback = checkpoint.scalars.get("rollback")
            self.rollback = None if rollback is None else Rollback(**rollback)
            return checkpoint.step
        if other is None:
            if self.bounds:
                # There is always a checkpoint to go back to.
                self._save(0)
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
            self.parts.restore(checkpoint.tensors)
            for learner in self.learners:
                name = learner.update.name
                learner.restore(
                    checkpoint.tensors.get(f"optimizer.{name}", {}), checkpoint.scalars["precision"][name]
                )
            self.meter.restore(checkpoint.tensors.get("log", {}), checkpoint.scalars["since"])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ModelError(
                f"checkpoint {path} is of another network: {reason}; restore its recipe's [{self.recipe.kind}]"
            ) from error

    def _save(self, step: int) -> None:
        """Writes a checkpoint; raises Diverged in place of one that no run should go on from."""
        self._check_bounds(step)
        self.meter.share()
        finite = True
        if self.main:
            tensors = {
                **self.parts.tensors(),
                **{f"optimizer.{learner.update.name}": learner.tensors() for learner in self.learners},
                "log": self.meter.tensors(),
            }
            scalars = {
                "recipe": self.recipe.to_dict(),
                "origin": self.origin,
                "since": self.meter.counts(),
                "rollback": None if self.rollback is None else vars(self.rollback),
                "precision": {
                    learner.update.name: learner.precision.state_dict() for learner in self.learners
                },
            }
            checkpoint = Checkpoint(step, self.identity, tensors, scalars)
            finite = checkpoint.is_finite()
            if finite:
                save_checkpoint(self.folder / "checkpoints", checkpoint, self.recipe.keep)
        if self.processes.any(not finite):
            raise Diverged("loss or weights are no longer finite", step)

    def _draw(self, step: int) -> None:
        """A failed picture is reported, never by the loss of the run."""
        path = self.folder / "samples" / f"step-{step:09d}.png"
        try:
            model = self._averaged()
            assert isinstance(model, Denoiser)
            draw_sample_grid(model, self.recipe.samples, self.recipe.seed, path)
        except Exception as error:
            reason = " ".join(str(error).split())
            tqdm.write(f"no sample grid at step {step}: {reason}", file=sys.stderr)

    def _validate(self, reader: Reader, log: RunLog | None, step: int) -> dict[str, float]:
        recipe = self.recipe
        losses = validation_losses(
            self._evaluated(),
            self.parts.updates,
            self.objective,
            reader,
            recipe.seed,
            recipe.batch_size,
            recipe.validation.n,
            self.learners[0].precision,
            self.processes.device,
        )
        if log is not None:
            log.note(step, losses)
        return losses

    def _measure(self, model: Path, log: RunLog) -> dict[str, float]:
        """Measures samples of the written model, once; a failure is reported, never by the loss of the run."""
        recipe = self.recipe
        told = {
            **recipe.evaluation,
            **dataclasses.asdict(recipe.sampling),
            "sha256": model_directory.read_card(model)["weights"]["sha256"],
        }
        known = log.numbers_of(recipe.steps, evaluation=told)
        if known:
            return known
        try:
            found = evaluated(model, recipe.measured, recipe.seed, self.processes.device)
        except Exception as error:
            reason = " ".join(str(error).split())
            tqdm.write(f"no evaluation: {reason}; start the same command again", file=sys.stderr)
            return {}
        log.note(recipe.steps, found, evaluation=told)
        return found

    def _averaged(self) -> nn.Module:
        """The model with the weights that would be written now, to look at."""
        return self._evaluated()[MODEL]

    def _evaluated(self) -> dict[str, nn.Module]:
        """It and the parts beside it."""
        model = fresh_model(self.parts.model, self.card, self.processes.device)
        model.load_state_dict(self.parts.final())
        return self.parts.evaluated(model.eval().requires_grad_(False))

    def _all_examples(self) -> Iterator[Tensor]:
        for indices in torch.arange(len(self.data.dataset)).split(self.recipe.batch_size):
            yield self.data.read(indices).x0

    def _export(self) -> Path:
        target = self.folder / "model"
        if self.main:
            written = self._evaluated()
            model = written[MODEL]
            with torch.no_grad():
                self.objective.finish(model, self._all_examples())
            inside, latent = {}, self.recipe.latent
            if self.parts.coder is not None:
                assert self.coder_card is not None
                inside = {INSIDE: self.folder / INSIDE}
                coder = written[self.parts.coder]
                model_directory.save_model(inside[INSIDE], self.coder_card, self._stored(coder))
            elif latent is not None:
                assert latent.autoencoder is not None
                inside = {INSIDE: model_path(latent.autoencoder)}
            model_directory.save_model(target, self.card, self._stored(model), inside)
        self.processes.wait()
        return target

    def _stored(self, network: nn.Module) -> dict[str, Tensor]:
        """The weights of a network in the dtype in which they are written."""
        dtype = getattr(torch, self.recipe.weights_dtype)
        tensors = {
            name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
            for name, tensor in network.state_dict().items()
        }
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ModelError(
                    f"{name} does not fit into {self.recipe.weights_dtype}; "
                    'set weights_dtype = "float32" and run again, nothing is trained anew'
                )
        return tensors


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
