"""A request with every name looked up, and the batches it starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.images import chosen
from trilemma.engine.inpainting import Known
from trilemma.engine.loop import Batch, Loop
from trilemma.engine.noise import NoiseSource
from trilemma.engine.program import Program
from trilemma.engine.request import Request
from trilemma.errors import TrilemmaError
from trilemma.interfaces.condition import Prepared, PreparedConditions
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.interfaces.sampler import Sampler
from trilemma.numerics.normal import PRIOR, STEP


@dataclass(frozen=True)
class Resolved:
    """A request with every name looked up and every default filled in.

    Attributes:
        request: as it was made.
        model, sampler: the objects.
        guidance: bound to the model, the conditions and the times.
        cond: prepared conditions of each of its branches, on the device.
        told: the conditions as the record holds them, by name.
        specs: canonical spec strings of sampler, guidance and process.
        steps: of the whole grid.
        times: [steps + 1], float64; with images to start from, those that are run.
        program: the lowered plan under the guidance; None for a sampler that runs its own `sample`.
        noise: where ξ is taken from.
        indices: of the samples.
        known: the region of the data that is kept; None for none.
        given: the region of the images that it comes from.
        shape: of one state, (K·C, H, W).
        dtype, device: of the states; network_dtype: of the networks.
    """

    request: Request
    model: Denoiser
    sampler: Sampler
    guidance: BoundGuidance
    cond: tuple[PreparedConditions, ...]
    told: Mapping[str, Any]
    specs: Mapping[str, str | None]
    steps: int
    times: Tensor
    program: Program | None
    noise: NoiseSource
    indices: Sequence[int]
    known: Known | None
    given: Known | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    network_dtype: torch.dtype
    device: torch.device

    @cached_property
    def sources(self) -> dict[str, str | None]:
        """Identities of the networks that prepared the conditions that were given, by name; None where none did.

        The digest of what came prepared says enough.
        """
        given = self.request.cond or {}
        raw = [name for name, value in given.items() if value is not None and not isinstance(value, Prepared)]
        return {name: self.model.conditions[name].source() for name in raw}

    @property
    def rows(self) -> int:
        """Rows of the program, or steps of a sampler without one."""
        return len(self.times) - 1 if self.program is None else len(self.program)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: of an image, or of the whole state where the grid ends before it gets to the data."""
        return self.model.image_shape if self.ends_at_data else self.shape

    @cached_property
    def ends_at_data(self) -> bool:
        """True where the last time is 0."""
        return float(self.times[-1]) == 0

    @property
    def numbers(self) -> int:
        """The count of numbers in all samples, and in their trajectories where those were asked for."""
        way = (self.rows + 1) * math.prod(self.shape) if self.request.trajectory else 0
        return len(self.indices) * (math.prod(self.sample_shape) + way)

    @cached_property
    def nfe(self) -> int:
        """Evaluations of a network, those that a guidance makes by itself included, that one sample pays."""
        if self.program is not None:
            rows = self.program.evaluated_rows
            return self.program.evaluations + sum(
                self.guidance.own_evaluations(self.program.times[row]) for row in rows
            )
        own = self.guidance.own_evaluations(float(self.times[0]))
        return self.sampler.nfe(len(self.times) - 1) * (len(self.guidance.branches) + own)

    def batch(self, indices: Tensor, latent: Tensor | None = None) -> Batch:
        """Returns the batch of samples `indices` [B], on the device, before its first row.

        Args:
            indices: int64 [B].
            latent: states [B, ...] to start from; None for the prior, or the images that the request starts from.
        """
        told = [prepared.take(indices) for prepared in self.cond]
        cond = {name: torch.cat([branch[name] for branch in told]) for name in told[0]}
        targets = self.guidance.targets(indices, told[0])
        states = self.first_states(indices) if latent is None else latent
        if self.known is None:
            return Batch(states, indices, self.noise, cond, targets)
        noise = self.first_noise(indices)
        states = self.known.imposed(states, indices, noise, self.first_level)
        return Batch(states, indices, self.noise, cond, targets, (*self.known.of(indices, states), noise))

    def first_states(self, indices: Tensor) -> Tensor:
        """Returns the states [B, ...] at the first time: those of the prior, or noised images."""
        start, process = self.request.start, self.model.process
        if start is not None:
            alpha, sigma = self.first_level
            noise = self.first_noise(indices)
            return alpha * self.model.view.data(chosen(start, indices, noise)) + sigma * noise
        prior = process.prior(self._prior_noise(indices, 0))
        return prior if self.prior_scale == 1 else prior * self.prior_scale

    def first_noise(self, indices: Tensor) -> Tensor:
        """Returns ξ [B, ...] that noises images; it differs from the prior's, from which the sample of that seed is
        drawn."""
        return self._prior_noise(indices, 1)

    def step_noise(self, indices: Tensor, step: int) -> Tensor:
        """Returns ξ [B, ...] of a step."""
        return self.noise.normal(indices, step, self.shape, stream=STEP, dtype=self.dtype, device=self.device)

    def _prior_noise(self, indices: Tensor, number: int) -> Tensor:
        return self.noise.normal(
            indices, number, self.shape, stream=PRIOR, dtype=self.dtype, device=self.device
        )

    @cached_property
    def prior_scale(self) -> float:
        """The ratio of √(α_t² + σ_t²) at the grid's first time to that at t = 1.

        For data of variance 1 that is the deviation of the state. A variance-preserving process has 1 everywhere.
        """
        if self.model.process.components > 1 or self.times[0] == 1:
            return 1.0
        ends = torch.stack([self.times[0], torch.ones((), dtype=torch.float64)])
        alpha, sigma = self.model.process.alpha_sigma(ends)
        first, last = (alpha.square() + sigma.square()).sqrt().tolist()
        return 1.0 if abs(first - last) < 1e-9 * last else first / last

    @cached_property
    def first_level(self) -> tuple[float, float]:
        """(α, σ) of the first time."""
        alpha, sigma = self.model.process.alpha_sigma(self.times[:1])
        return alpha.item(), sigma.item()

    def loop(self, kind: type[Loop], batch: int) -> Loop:
        """Returns a loop for batches of one size.

        Its buffers are ordinary tensors though the loop may run in inference mode: a callback gets views of them.
        """
        assert self.program is not None
        sizes = (batch, self.shape, self.dtype, self.network_dtype, self.device)
        with torch.inference_mode(False), torch.no_grad():
            return kind(self.program, self.guidance, *sizes, inpaints=self.known is not None)

    def samples(self, states: Tensor, indices: Tensor) -> Tensor:
        """Returns the samples [B, ...] of final states: the images of their data, where the grid ends there.

        Raises:
            TrilemmaError: for an image that is not finite.
        """
        if not self.ends_at_data:
            return states
        data = states[:, : self.model.shape[0]]
        images = self.model.view.images(data)
        if images is data:
            return images
        self.check_finite(images, indices)
        return images if self.given is None else self.given.pasted(images, indices)

    def check_finite(self, samples: Tensor, indices: Tensor) -> None:
        """Raises TrilemmaError where a finished sample is not finite."""
        bad = ~samples.flatten(1).isfinite().all(1)
        if bad.any():
            raise TrilemmaError(
                f"{type(self.sampler).__name__} gave a value that is not finite in sample "
                f"{int(indices[bad][0])}; check the model's weights, or use a wider dtype"
            )
