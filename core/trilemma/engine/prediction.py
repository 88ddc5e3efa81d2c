"""The guided prediction as a function, for samplers that have no plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from trilemma.engine.evaluation import Evaluation
from trilemma.interfaces.denoiser import time_dtype
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.numerics.conversion import check_components, convert


class GuidedPrediction:
    """(z, t) → x̂₀, ε̂, v̂ or the score of a model under guidance, all branches in one batch.

    A call pays one evaluation a branch that is evaluated; see `trilemma.Prediction`.

    Args:
        evaluation: of the guidance, for batches of B in the dtype of the networks: a sampler's own steps may hold the
            states in any.
        cond: conditions of the networks [G·B].
        targets: of the guidance [B].
        network_dtype: dtype that the networks compute in.
        draw: draws for the networks what they want for themselves, by the number of the call.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        cond: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        network_dtype: torch.dtype,
        draw: Callable[[int], None],
    ) -> None:
        self._evaluation, self._cond, self._targets = evaluation, cond, targets
        self.guidance: BoundGuidance = evaluation.guidance
        self.denoiser = self.guidance.branches[0].network
        self.network_dtype = network_dtype
        self.evaluations = 0
        self._draw, self._calls = draw, 0
        self._coefficients = cache(self._coefficients_at)

    def __call__(
        self,
        z: Tensor,
        t: float | Tensor,
        parameterization: str = "x0",
        to: float | Tensor | None = None,
    ) -> Tensor:
        """Returns the prediction [B, ...] at states z [B, ...] and time t, in the parameterization asked for.

        A time for each sample is a float64 tensor [B] on the host.

        Args:
            to: where the step goes, for networks that are told.
        """
        if isinstance(t, Tensor):
            return self._at_own_times(z, t, parameterization, to)
        evaluated = self._evaluated(t)
        outputs = self._evaluate(z, t, evaluated, to)
        self.evaluations += self.guidance.own_evaluations(t)
        combined = self._evaluation.combined(z, t, outputs, self._targets, evaluated)
        *p, q = self._coefficients(t, parameterization)
        prediction: Tensor = _weighted(p, z) + q * combined
        return prediction

    def _at_own_times(self, z: Tensor, t: Tensor, parameterization: str, to: float | Tensor | None) -> Tensor:
        """One call of the network for all; a guidance, whose numbers depend on the time, sample by sample."""
        times = t.tolist()
        needed = [self._evaluated(time) for time in times]
        outputs = self._evaluate(z, t, max(needed), to)
        self.evaluations += max((self.guidance.own_evaluations(time) for time in times), default=0)
        combined = outputs
        if len(self.guidance.branches) > 1 or not self.guidance.linear:
            parts = outputs.chunk(max(needed))
            samples = []
            for b, (time, evaluated) in enumerate(zip(times, needed, strict=True)):
                one = slice(b, b + 1)
                targets = {name: of[one] for name, of in self._targets.items()}
                own = [part[one] for part in parts[:evaluated]]
                samples.append(self.guidance.combine(z[one], time, own, targets))
            combined = torch.cat(samples)
        pairs = [self._coefficients(time, parameterization) for time in times]
        table = torch.tensor(pairs, dtype=torch.float64).to(z.device, z.dtype)
        *p, q = table.T.reshape(table.shape[1], -1, *(1,) * (z.dim() - 1))
        prediction: Tensor = _weighted(p, z) + q * combined
        return prediction

    def _evaluated(self, t: float) -> int:
        return min(len(self.guidance.branches), self.guidance.evaluated(t))

    def _evaluate(self, z: Tensor, t: float | Tensor, evaluated: int, to: float | Tensor | None) -> Tensor:
        """The outputs [g·B, ...] of the first g branches, counted."""
        self.evaluations += evaluated
        if self._evaluation.draws:
            self._draw(self._calls)
        self._calls += 1
        states = z.repeat(evaluated, *(1,) * (z.dim() - 1)) if evaluated > 1 else z
        times = self._times(t, z, evaluated)
        end = None if to is None or not self._evaluation.takes_to else self._times(to, z, evaluated)
        return self._evaluation(states.to(self.network_dtype), times, self._cond, end).to(z.dtype)

    def _times(self, t: float | Tensor, z: Tensor, evaluated: int) -> Tensor:
        """[g·B] on the device."""
        kind = time_dtype(self.network_dtype)
        if isinstance(t, Tensor):
            return t.to(z.device, kind).repeat(evaluated)
        return torch.full((evaluated * len(z),), t, dtype=kind, device=z.device)

    def _coefficients_at(self, t: float, parameterization: str) -> tuple[float, ...]:
        """p_1 .. p_K and q."""
        process = self.denoiser.process
        check_components(parameterization, process.components)
        w, alpha, sigma = process.last_component(torch.tensor(t, dtype=torch.float64))
        p, q = convert(self.denoiser.parameterization, parameterization, alpha, sigma)
        return *(p * w).tolist(), q.item()


def _weighted(p: Sequence[float | Tensor], z: Tensor) -> Tensor:
    """Σ_k p_k z_k of the components of z."""
    parts = z.chunk(len(p), 1) if len(p) > 1 else (z,)
    total = p[0] * parts[0]
    for weight, part in zip(p[1:], parts[1:], strict=True):
        total = total + weight * part
    return total
