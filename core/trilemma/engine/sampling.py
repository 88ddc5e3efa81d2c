"""Drawing samples: `sample` returns them all, `sample_chunks` hands them out as they come."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma.engine.batches import Chunk, Chunks
from trilemma.engine.graphs import Capture, checked, none_of_a_plan
from trilemma.engine.loop import Callback, Runner
from trilemma.engine.noise import NoiseSource
from trilemma.engine.prediction import GuidedPrediction
from trilemma.engine.provenance import Clock, describe
from trilemma.engine.request import Job, resolve_job
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.sampler import Sampler
from trilemma.machine.memory import check_memory


@dataclass(frozen=True)
class Samples:
    """What `trilemma.sample` returns.

    Attributes:
        samples: [n, C, H, W] in the order of the indices asked for: the data, the first of the process's components.
        provenance: what made them; can be written as JSON.
        trajectory: the whole state before the first row and after each, [rows + 1, n, K·C, H, W]; None where not asked
            for.
        times: of these states, falling [rows + 1]; None likewise.
        indices: of the samples; None for 0 .. n − 1.
    """

    samples: Tensor
    provenance: dict[str, Any]
    trajectory: Tensor | None = None
    times: tuple[float, ...] | None = None
    indices: Sequence[int] | None = None

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Writes the samples, with what made them, into a place of the kind that its suffix asks for; returns its path.

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


def sample(
    model: Denoiser | str | Path,
    n: int = 1,
    *,
    sampler: Sampler | str | None = None,
    steps: int = 50,
    guidance: Guidance | str | None = None,
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    indices: Sequence[int] | Tensor | None = None,
    latent: Tensor | None = None,
    start: Tensor | None = None,
    strength: float | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    resample: int = 1,
    jump: int = 1,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    capture: str = "auto",
    trajectory: bool = False,
) -> Samples:
    """Draws n samples from a trained model.

    Sample i depends on (seed, i) alone: its noise and every engine step are the same bits alone, in a batch
    and in any chunking; the network's own rounding may depend on the batch shape.

    Args:
        model: a denoiser, or the name or directory of one for `trilemma.load`.
        n: number of samples.
        sampler: a sampler or its spec, such as "ddim:eta=0,grid=trailing"; by default the one that the model's card
            names, or ddim.
        steps: number of steps; at most T for a discrete process.
        guidance: a guidance or its spec, such as "cfg:scale=2"; by default, where a condition is given, the one that
            the model's card names, else the model's own prediction. "cfg:scale=1" is none.
        cond: conditions by name: one value for all, or a list that sample i takes entry i mod length of.
        seed: integer in [0, 2⁶⁴).
        indices: which samples; range(n) by default.
        latent: states [n, K·C, H, W] to start from in place of the prior, such as `trilemma.invert` returns.
        start: images [N, C, H, W] to start from in place of the prior, noised to the first time of the grid that is not
            above `strength` (2108.01073); sample i starts from entry i modulo N. Only the steps from there on are run.
            n = 1 stands for N samples.
        strength: how far on the clock `start` is noised, above 0 and up to 1; 0.6 by default.
        known, mask: images [N, C, H, W], and a mask [M, 1 or C, H, W] of 0 and 1 that is 1 where they are kept: after
            every row that region becomes α_t x + σ_t ξ of them, and the images themselves at the end, with one ξ for a
            sample. Sample i takes entries i modulo N and M. The rest hears of the region through the network alone, and
            its law is not that of the data given the region, however many steps there are: of two pixels of variance 1
            and correlation .8 one is .35 in the mean, and not .8, where the other is 1. `resample` and the guidance
            `moment-matching` mend that.
        resample, jump: every `jump` steps are taken `resample` times, with the noise put back in between (2201.09865).
            It costs as many times the evaluations, and needs a sampler of one step a row.
        batch_size: samples in one call of the network at most; a guided call holds as many a branch.
        deterministic: always call the network with 64 samples, sample i in row i mod 64, so that the finished
            samples too are the same bits however they are chunked; `batch_size` is not used then.
        device: where a model given by name goes; a denoiser stays where it is.
        dtype: dtype of the state; that of the model by default.
        noise: where noise is taken from, to inject another library's; keyed by `seed` by default.
        callback: called after each step with (steps done, steps, time, state [B, ...]), with gradients as at the call.
            The state is a view that the next step overwrites: clone it to keep it. A clone is an ordinary tensor.
        progress: show a progress bar on stderr.
        capture: CUDA graphs of the loop: "step" replays one of a step, "loop" one of all steps, which no callback
            and no progress bar can follow; "auto" takes what fits, "off" none. What cannot be captured is launched
            step by step, with the same result; the provenance says what ran, and why not another.
        trajectory: also keep the state before the first row and after each; a loop in one graph cannot be followed.

    Raises:
        UsageError: for an impossible argument.
        TrilemmaError: where a value is not finite, with the step, the time and the sample.
    """
    chunks = sample_chunks(
        model,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        cond=cond,
        seed=seed,
        indices=indices,
        latent=latent,
        start=start,
        strength=strength,
        known=known,
        mask=mask,
        resample=resample,
        jump=jump,
        batch_size=batch_size,
        deterministic=deterministic,
        device=device,
        dtype=dtype,
        noise=noise,
        callback=callback,
        progress=progress,
        capture=capture,
        trajectory=trajectory,
    )
    return chunks.collect()


def sample_chunks(
    model: Denoiser | str | Path,
    n: int = 1,
    *,
    sampler: Sampler | str | None = None,
    steps: int = 50,
    guidance: Guidance | str | None = None,
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    indices: Sequence[int] | Tensor | None = None,
    latent: Tensor | None = None,
    start: Tensor | None = None,
    strength: float | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    resample: int = 1,
    jump: int = 1,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    capture: str = "auto",
    trajectory: bool = False,
) -> SampleChunks:
    """An iterator of (indices [b], samples [b, C, H, W]), a batch of the network at a time.

    Arguments and errors are those of `sample`; bad arguments are refused here, before the first batch. To
    resume an interrupted run, pass the indices that are missing.
    """
    checked(capture)
    job = resolve_job(
        model,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        cond=cond,
        seed=seed,
        indices=indices,
        latent=latent,
        start=start,
        strength=strength,
        known=known,
        mask=mask,
        resample=resample,
        jump=jump,
        batch_size=batch_size,
        deterministic=deterministic,
        device=device,
        dtype=dtype,
        noise=noise,
    )
    return SampleChunks(job, callback, progress, capture, trajectory)


class SampleChunks(Iterator[tuple[Tensor, Tensor]]):
    """A request on its way: hands out its batches, and says what made them.

    Attributes:
        job: the request, checked and resolved.
        trajectory, times: of the last batch, [rows + 1, b, ...] and [rows + 1], where they were asked for.
    """

    def __init__(
        self,
        job: Job,
        callback: Callback | None = None,
        progress: bool = False,
        capture: str = "auto",
        trajectory: bool = False,
    ) -> None:
        self.job = job
        self._callback = callback
        # Of the caller: inference mode, gradients.
        self._modes = (False, True)
        self._watched = progress or trajectory or callback is not None
        self._path: list[tuple[float, Tensor]] | None = [] if trajectory else None
        self.trajectory: Tensor | None = None
        self.times: tuple[float, ...] | None = None
        self._asked = capture
        self._capture: Capture | None = none_of_a_plan(capture) if job.program is None else None
        self._chunks = Chunks(job.indices, job.batch_size, job.deterministic)
        self._order = iter(self._chunks)
        self._next: Chunk | None = None
        self._drawn = 0
        self._clock = Clock()
        self._runner: tuple[int, Runner] | None = None
        self._rows = len(job.program) if job.program else len(job.times) - 1
        self._progress = progress
        self._evaluations = job.nfe
        self._backend: str | None = None

    @cached_property
    def _bar(self) -> Any:
        """Shown from the first batch on, so that what fails before it has a line of its own."""
        steps = len(self._chunks) * self._rows
        return tqdm(total=steps, unit="step", file=sys.stderr, disable=not self._progress)

    def __next__(self) -> tuple[Tensor, Tensor]:
        chunk = self._next = self._next or next(self._order, None)
        if chunk is None:
            self._bar.close()
            raise StopIteration
        self._bar.refresh()
        try:
            samples = self._draw(chunk)
        except BaseException:
            self._bar.close()  # so that the error begins a line of its own
            raise
        self._drawn += 1
        self._next = None
        return chunk.indices[chunk.rows], samples

    @property
    def numbers(self) -> int:
        """How many numbers all samples are, and their way where it was asked for."""
        job = self.job
        way = 0 if self._path is None else (self._rows + 1) * math.prod(job.shape)
        return len(job.indices) * (math.prod(job.sample_shape) + way)

    def collect(self) -> Samples:
        """Returns all samples, in the order asked for.

        Raises:
            UsageError: where they do not fit in the memory of the device.
        """
        job = self.job
        check_memory(
            self.numbers * job.dtype.itemsize,
            f"n={len(job.indices)} samples of shape {tuple(job.sample_shape)}",
            "draw fewer, or a batch at a time with sample_chunks",
            job.device,
        )
        samples = torch.empty((len(job.indices), *job.sample_shape), dtype=job.dtype, device=job.device)
        path: Tensor | None = None
        for chunk, (_, drawn) in zip(self._chunks, self, strict=True):
            positions = chunk.positions.to(job.device)
            samples[positions] = drawn
            if self.trajectory is not None:
                if path is None:
                    path = samples.new_empty((len(self.trajectory), len(samples), *job.shape))
                if len(path) != len(self.trajectory):
                    raise UsageError(
                        f"{type(job.sampler).__name__} took another number of steps in every batch, which one "
                        "trajectory cannot hold; draw a batch at a time with sample_chunks"
                    )
                path[:, positions] = self.trajectory
        return Samples(samples, self.provenance, path, self.times, job.indices)

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the samples handed out so far; can be written as JSON."""
        return describe(self.job, self._clock, self._evaluations, self._backend, self._capture)

    def _draw(self, chunk: Chunk) -> Tensor:
        """The samples [b, ...] of a chunk, as tensors of their own."""
        self._modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        with self._clock.running(len(chunk.rows)), torch.inference_mode():
            indices = chunk.indices.to(self.job.device)
            start = self.job.imposed(self._start(chunk, indices), indices)
            if self._path is not None:
                self._path[:] = [(float(self.job.times[0]), start.clone())]
            drawn = self._run(indices, start, self.job.conditions(indices))
        if self._path is not None:
            self.times = tuple(time for time, _ in self._path)
            self.trajectory = torch.stack([state[chunk.rows.to(state.device)] for _, state in self._path])
        drawn = drawn[:, : self.job.sample_shape[0]]
        return drawn.clone() if chunk.full else drawn[chunk.rows.to(drawn.device)].clone()

    def _start(self, chunk: Chunk, indices: Tensor) -> Tensor:
        """States [B, ...] before the first step."""
        job = self.job
        if job.latent is None:
            return job.prior(indices)
        start = job.latent[chunk.positions[:1]].repeat(len(indices), *(1,) * len(job.shape))
        start[chunk.rows] = job.latent[chunk.positions]
        return start.to(job.device, job.dtype)

    def _run(self, indices: Tensor, start: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        job = self.job
        if job.program is not None:
            runner = self._runner_for(len(indices))
            known = None if job.known is None else (*job.known.of(indices, start), job.image_noise(indices))
            report = self._report if self._watched else None
            drawn = runner.run(start, indices, cond, job.noise, report, known)
            self._backend = runner.backend
            self._capture = runner.capture if self._capture is None else self._capture.then(runner.capture)
            return drawn
        predict = GuidedPrediction(
            job.model, job.guidance, cond, job.branches, job.network_dtype, job.networks
        )
        drawn = job.sampler.sample(
            predict,
            start,
            job.times,
            lambda step: job.step_noise(indices, step),
            lambda step, t, state: self._report(step, len(job.times) - 1, t, state),
        )
        self._backend = "pytorch"
        self._evaluations = max(self._evaluations if self._drawn else 0, predict.evaluations)
        job.check_finite(drawn, indices)
        return drawn

    def _runner_for(self, batch: int) -> Runner:
        """The runner of the last batch, where it had this many rows."""
        job = self.job
        assert job.program is not None
        if self._runner is None or self._runner[0] != batch:
            alike = self._chunks.of_size(batch)
            # Its buffers are ordinary tensors though the loop runs in inference mode: a callback gets views of them.
            with torch.inference_mode(False), torch.no_grad():
                runner = Runner(
                    job.model,
                    job.program,
                    batch,
                    job.shape,
                    job.dtype,
                    job.network_dtype,
                    job.device,
                    self._asked,
                    alike,
                    job.known is not None,
                    job.networks,
                )
            self._runner = batch, runner
        return self._runner[1]

    def _report(self, step: int, steps: int, t: float, state: Tensor) -> None:
        self._bar.update()
        if self._path is not None:
            self._path.append((t, state.clone()))
        if self._callback is None:
            return
        in_inference, with_grad = self._modes
        with torch.inference_mode(in_inference), torch.set_grad_enabled(with_grad):
            # What a sampler's own steps make is an inference tensor, which no one could change.
            given = state.clone() if state.is_inference() and not in_inference else state
            self._callback(step, steps, t, given)
