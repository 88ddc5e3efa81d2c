"""A running request: its batches, one after the other, and their provenance."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma.engine.batches import Chunk, Chunks
from trilemma.engine.evaluation import Evaluation
from trilemma.engine.graphs import Capture, none_of_a_plan
from trilemma.engine.loop import Batch
from trilemma.engine.prediction import GuidedPrediction
from trilemma.engine.provenance import Clock, describe
from trilemma.engine.request import Request
from trilemma.engine.resolve import resolve
from trilemma.engine.resolved import Resolved
from trilemma.engine.runner import Runner
from trilemma.errors import UsageError
from trilemma.machine.memory import check_memory
from trilemma.ops.choice import InForce, in_force


@dataclass(frozen=True)
class Samples:
    """Finished samples with their provenance.

    Attributes:
        samples: [n, C, H, W] in the order of the indices asked for: the data, the first of the process's components.
        provenance: the record of how they were made; can be written as JSON.
        trajectory: the whole state before the first row and after each, [rows + 1, n, K·C, H, W]; None where not asked
            for.
        times: of these states, falling [rows + 1]; None likewise.
        indices: of the samples; None for 0 .. n − 1.
        stages: the images of the stages before the last one of a cascade, [n, C, H, W] each; () where not asked for.
    """

    samples: Tensor
    provenance: dict[str, Any]
    trajectory: Tensor | None = None
    times: tuple[float, ...] | None = None
    indices: Sequence[int] | None = None
    stages: tuple[Tensor, ...] = ()

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Writes the samples and their provenance to a path, whose suffix decides the kind of file; returns the path.

        `.png` and `.jpg` are one picture, a grid of several samples or one of its own size; `.gif` and `.webp` an
        animation of the trajectory; `.npz` an array, with the trajectory where there is one; no suffix or a slash at
        the end is a folder of PNGs, whose pictures that are there already stay.

        Args:
            path: the file or folder.
            columns: samples in a row of a grid; ⌈√n⌉ by default.

        Raises:
            UsageError: for a suffix of no kind, samples that are no pictures, or an animation of no trajectory.
            OutputError: where the place cannot be written, or holds other samples; nothing is left half-written.
        """
        # Pictures are not needed to draw samples, and take longer to import than a small model to draw.
        from trilemma.output import destination

        target = destination(str(path), columns)
        indices = range(len(self.samples)) if self.indices is None else self.indices
        place = {index: position for position, index in enumerate(indices)}
        if len(place) < len(indices):
            raise UsageError("the samples hold an index twice; save samples of different indices")
        target.check(self.samples.shape[1:], self.samples.numel())
        with target.open(indices, self.provenance) as sink:
            if missing := sink.missing():
                rows = [place[index] for index in missing]
                way = self.trajectory if target.holds_trajectory else None
                sink.add(missing, self.samples[rows], None if way is None else way[:, rows], self.times)
            sink.finish(self.provenance)
        return target.path


class SampleChunks(Iterator[tuple[Tensor, Tensor]]):
    """A running request: hands out its batches and their provenance.

    Args:
        request: the request to draw.
        until: the time at which it stops, its states then being the samples; None for the data.

    Attributes:
        resolved: the request, checked and resolved.
        trajectory, times: of the last batch, [rows + 1, b, ...] and [rows + 1], where they were asked for.
        stages: of the last batch, the images of the stages before the last one of a cascade, where they were asked for.
    """

    stages: tuple[Tensor, ...] = ()

    @property
    def before(self) -> Sequence[SampleChunks]:
        """The running requests of the stages before the last one of a cascade; none for a single model."""
        return ()

    def __init__(self, request: Request, until: float | None = None) -> None:
        self.resolved: Resolved = resolve(request, until)
        # Of the caller: inference mode, gradients.
        self._modes = (False, True)
        self._path: list[tuple[float, Tensor]] | None = [] if request.trajectory else None
        self.trajectory: Tensor | None = None
        self.times: tuple[float, ...] | None = None
        asked = request.capture
        self._capture: Capture | None = none_of_a_plan(asked) if self.resolved.program is None else None
        self._chunks = Chunks(self.resolved.indices, request.batch_size, request.deterministic)
        self._order = iter(self._chunks)
        self._next: Chunk | None = None
        self._drawn = 0
        self._clock = Clock()
        self._runner: tuple[int, Runner] | None = None
        self._evaluation: tuple[int, Evaluation] | None = None
        self._evaluations = self.resolved.nfe
        self._backend: str | None = None
        self._choice: InForce | None = None

    @cached_property
    def _bar(self) -> Any:
        """Shown from the first batch on, so that what fails before it has a line of its own; None if not wanted."""
        if not self.resolved.request.progress:
            return None
        return tqdm(total=len(self._chunks) * self.resolved.rows, unit="step", file=sys.stderr)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __next__(self) -> tuple[Tensor, Tensor]:
        chunk = self._next = self._next or next(self._order, None)
        if chunk is None:
            self._close_bar()
            raise StopIteration
        samples = self._draw(chunk).clone()
        self._next = None
        return chunk.indices[chunk.rows], samples

    def collect(self) -> Samples:
        """Returns all samples, in the order asked for.

        Raises:
            UsageError: where they do not fit in the memory of the device.
        """
        resolved = self.resolved
        check_memory(
            resolved.numbers * resolved.dtype.itemsize,
            f"n={len(resolved.indices)} samples of shape {tuple(resolved.sample_shape)}",
            "draw fewer, or a batch at a time with sample_chunks",
            resolved.device,
        )
        samples = self.empty(len(resolved.indices))
        path: Tensor | None = None
        for chunk in self._order:
            drawn = self._draw(chunk)
            positions = chunk.positions.to(resolved.device)
            samples[positions] = drawn
            if self.trajectory is not None:
                if path is None:
                    path = samples.new_empty((len(self.trajectory), len(samples), *resolved.shape))
                if len(path) != len(self.trajectory):
                    raise UsageError(
                        f"{type(resolved.sampler).__name__} took another number of steps in every batch, which one "
                        "trajectory cannot hold; draw a batch at a time with sample_chunks"
                    )
                path[:, positions] = self.trajectory
        self._close_bar()
        return Samples(samples, self.provenance, path, self.times, resolved.indices)

    @property
    def provenance(self) -> dict[str, Any]:
        """The record of how the samples handed out so far were made; it can be written as JSON."""
        return describe(
            self.resolved, self._clock, self._evaluations, self._backend, self._choice, self._capture
        )

    def draw(self, indices: Sequence[int]) -> Tensor:
        """Returns the samples [b, ...] of these indices, whichever the request asks for."""
        request, drawn = self.resolved.request, self.empty(len(indices))
        for chunk in Chunks(indices, request.batch_size, request.deterministic):
            drawn[chunk.positions.to(drawn.device)] = self._draw(chunk)
        return drawn

    def empty(self, count: int) -> Tensor:
        """Returns a place for `count` samples."""
        resolved = self.resolved
        return torch.empty((count, *resolved.sample_shape), dtype=resolved.dtype, device=resolved.device)

    def _draw(self, chunk: Chunk) -> Tensor:
        """The samples [b, ...] of a chunk; a view, perhaps, that the next chunk overwrites."""
        self._modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        resolved = self.resolved
        self._choice = in_force()
        if self._bar is not None:
            self._bar.refresh()
        try:
            with self._clock.running(len(chunk.rows)), torch.inference_mode():
                batch = resolved.batch(chunk.indices.to(resolved.device), self._latent(chunk))
                if self._path is not None:
                    self._path[:] = [(float(resolved.times[0]), batch.states.clone())]
                if resolved.program is None:
                    drawn = self._run_by_itself(batch)
                else:
                    runner = self._runner_of(len(batch.indices))
                    drawn = runner.run(batch, self._report if resolved.request.watched else None)
                    self._backend = runner.backend
                    self._capture = (
                        runner.capture if self._capture is None else self._capture.then(runner.capture)
                    )
                drawn = resolved.samples(drawn, batch.indices)
        except BaseException:
            # The error then begins a line of its own.
            self._close_bar()
            raise
        self._drawn += 1
        if self._path is not None:
            self.times = tuple(time for time, _ in self._path)
            self.trajectory = torch.stack([state[chunk.rows.to(state.device)] for _, state in self._path])
        return drawn if chunk.full else drawn[chunk.rows.to(drawn.device)]

    def _latent(self, chunk: Chunk) -> Tensor | None:
        """The states [B, ...] that a chunk starts from, where they are given."""
        resolved = self.resolved
        latent = resolved.request.latent
        if latent is None:
            return None
        if chunk.full:
            return latent[chunk.positions].to(resolved.device, resolved.dtype)
        states = latent[chunk.positions[:1]].repeat(len(chunk.indices), *(1,) * len(resolved.shape))
        states[chunk.rows] = latent[chunk.positions]
        return states.to(resolved.device, resolved.dtype)

    def _run_by_itself(self, batch: Batch) -> Tensor:
        """Runs a sampler that has no plan."""
        resolved = self.resolved
        size = len(batch.indices)
        if self._evaluation is None or self._evaluation[0] != size:
            kind = resolved.network_dtype
            sizes = (size, resolved.shape, kind, kind, resolved.device)
            self._evaluation = size, Evaluation(resolved.guidance, *sizes)
        evaluation = self._evaluation[1]
        predict = GuidedPrediction(
            evaluation,
            batch.cond,
            batch.targets,
            resolved.network_dtype,
            lambda number: evaluation.draw(batch.noise, batch.indices, number),
        )
        drawn = resolved.sampler.sample(
            predict,
            batch.states,
            resolved.times,
            lambda step: resolved.step_noise(batch.indices, step),
            lambda step, t, state: self._report(step, len(resolved.times) - 1, t, state),
        )
        self._backend = "pytorch"
        self._evaluations = max(self._evaluations if self._drawn else 0, predict.evaluations)
        resolved.check_finite(drawn, batch.indices)
        return drawn

    def _runner_of(self, batch: int) -> Runner:
        """The runner of the last batch, where it was of this size."""
        if self._runner is None or self._runner[0] != batch:
            resolved, alike = self.resolved, self._chunks.of_size(batch)
            runner = Runner(lambda kind: resolved.loop(kind, batch), resolved.request.capture, alike)
            self._runner = batch, runner
        return self._runner[1]

    def _report(self, row: int, rows: int, t: float, state: Tensor) -> None:
        if self._bar is not None:
            self._bar.update()
        if self._path is not None:
            self._path.append((t, state.clone()))
        callback = self.resolved.request.callback
        if callback is None:
            return
        in_inference, with_grad = self._modes
        with torch.inference_mode(in_inference), torch.set_grad_enabled(with_grad):
            # A state that a sampler made by itself is an inference tensor, which no one could change.
            given = state.clone() if state.is_inference() and not in_inference else state
            callback(row, rows, t, given)
