"""Drawing samples: `sample` returns them all, `sample_chunks` hands them out as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma.capture import Capture, checked, none_of_a_plan
from trilemma.chunks import Chunk, chunked
from trilemma.denoiser import Denoiser
from trilemma.guidance import Guidance
from trilemma.job import Job, resolve_job
from trilemma.noise import NoiseSource
from trilemma.prediction import Prediction
from trilemma.provenance import Clock, describe
from trilemma.runner import Callback, Runner
from trilemma.sampler import Sampler


@dataclass(frozen=True)
class Samples:
    """What `trilemma.sample` returns.

    Attributes:
        samples: [n, K·C, H, W] in the order of the indices asked for.
        provenance: what made them; can be written as JSON.
    """

    samples: Tensor
    provenance: dict[str, Any]


def sample(
    model: Denoiser | str | Path,
    n: int = 1,
    *,
    sampler: Sampler | str = "ddim",
    steps: int = 50,
    guidance: Guidance | str | None = None,
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    indices: Sequence[int] | Tensor | None = None,
    latent: Tensor | None = None,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    capture: str = "auto",
) -> Samples:
    """Draws n samples from a trained model.

    Sample i depends on (seed, i) alone: its noise and every engine step are the same bits alone, in a batch
    and in any chunking; the network's own rounding may depend on the batch shape.

    Args:
        model: a denoiser, or the name or directory of one for `trilemma.load`.
        n: number of samples.
        sampler: a sampler or its spec, such as "ddim:eta=0,grid=trailing".
        steps: number of steps; at most T for a discrete process.
        guidance: a guidance or its spec, such as "cfg:scale=2"; None for the model's own prediction.
        cond: conditions by name: one value for all, or a list that sample i takes entry i mod length of.
        seed: integer in [0, 2⁶⁴).
        indices: which samples; range(n) by default.
        latent: states [n, K·C, H, W] to start from in place of the prior, such as `trilemma.invert` returns.
        batch_size: samples in one call of the network at most; a guided call holds as many a branch.
        deterministic: always call the network with 64 samples, sample i in row i mod 64, so that the finished
            samples too are the same bits however they are chunked; `batch_size` is not used then.
        device: where a model given by name goes; a denoiser stays where it is.
        dtype: dtype of the state; that of the model by default.
        noise: where noise is taken from, to inject another library's; keyed by `seed` by default.
        callback: called after each step with (steps done, steps, time, state [B, ...]). The state is a view
            that the next step overwrites: clone it to keep it.
        progress: show a progress bar on stderr.
        capture: CUDA graphs of the loop: "step" replays one of a step, "loop" one of all steps, which no callback
            and no progress bar can follow; "auto" takes what fits, "off" none. What cannot be captured is launched
            step by step, with the same result; the provenance says what ran, and why not another.

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
        batch_size=batch_size,
        deterministic=deterministic,
        device=device,
        dtype=dtype,
        noise=noise,
        callback=callback,
        progress=progress,
        capture=capture,
    )
    return chunks.collect()


def sample_chunks(
    model: Denoiser | str | Path,
    n: int = 1,
    *,
    sampler: Sampler | str = "ddim",
    steps: int = 50,
    guidance: Guidance | str | None = None,
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    indices: Sequence[int] | Tensor | None = None,
    latent: Tensor | None = None,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    noise: NoiseSource | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    capture: str = "auto",
) -> SampleChunks:
    """An iterator of (indices [b], samples [b, K·C, H, W]), a batch of the network at a time.

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
        batch_size=batch_size,
        deterministic=deterministic,
        device=device,
        dtype=dtype,
        noise=noise,
    )
    return SampleChunks(job, callback, progress, capture)


class SampleChunks(Iterator[tuple[Tensor, Tensor]]):
    """A request on its way: hands out its batches, and says what made them.

    Attributes:
        job: the request, checked and resolved.
    """

    def __init__(
        self, job: Job, callback: Callback | None = None, progress: bool = False, capture: str = "auto"
    ) -> None:
        self.job = job
        self._callback = callback
        self._watched = progress or callback is not None
        self._asked = capture
        self._capture: Capture | None = none_of_a_plan(capture) if job.program is None else None
        self._chunks = chunked(job.indices, job.batch_size, job.deterministic)
        self._drawn = 0
        self._clock = Clock()
        self._runner: tuple[int, Runner] | None = None
        rows = len(job.program) if job.program else job.steps
        self._bar = tqdm(total=len(self._chunks) * rows, unit="step", file=sys.stderr, disable=not progress)
        self._evaluations = job.nfe
        self._backend: str | None = None

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._drawn == len(self._chunks):
            self._bar.close()
            raise StopIteration
        chunk = self._chunks[self._drawn]
        try:
            samples = self._draw(chunk)
        except BaseException:
            self._bar.close()  # so that the error begins a line of its own
            raise
        self._drawn += 1
        return chunk.indices[chunk.rows], samples

    def collect(self) -> Samples:
        """All samples, in the order asked for."""
        job = self.job
        samples = torch.empty((len(job.indices), *job.shape), dtype=job.dtype, device=job.device)
        for chunk, (_, drawn) in zip(self._chunks, self, strict=True):
            samples[chunk.positions.to(job.device)] = drawn
        return Samples(samples, self.provenance)

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the samples handed out so far; can be written as JSON."""
        return describe(self.job, self._clock, self._evaluations, self._backend, self._capture)

    def _draw(self, chunk: Chunk) -> Tensor:
        """The samples [b, ...] of a chunk, as tensors of their own."""
        with self._clock.running(len(chunk.rows)), torch.inference_mode():
            indices = chunk.indices.to(self.job.device)
            drawn = self._run(indices, self._start(chunk, indices), self.job.conditions(indices))
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
            drawn = runner.run(start, indices, cond, job.noise, self._report if self._watched else None)
            self._backend = runner.backend
            self._capture = runner.capture if self._capture is None else self._capture.then(runner.capture)
            return drawn
        predict = Prediction(job.model, job.guidance, cond, job.branches, job.network_dtype, job.networks)
        drawn = job.sampler.sample(
            predict,
            start,
            job.times,
            lambda step: job.step_noise(indices, step),
            lambda step, t, state: self._report(step, job.steps, t, state),
        )
        self._backend = "pytorch"
        self._evaluations = predict.evaluations
        job.check_finite(drawn, indices)
        return drawn

    def _runner_for(self, batch: int) -> Runner:
        """The runner of the last batch, where it had this many rows."""
        job = self.job
        assert job.program is not None
        if self._runner is None or self._runner[0] != batch:
            alike = sum(len(chunk.indices) == batch for chunk in self._chunks)
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
                job.networks,
            )
            self._runner = batch, runner
        return self._runner[1]

    def _report(self, step: int, steps: int, t: float, state: Tensor) -> None:
        self._bar.update()
        if self._callback is not None:
            self._callback(step, steps, t, state)
