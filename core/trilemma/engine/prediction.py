"""The guided prediction as a function, for samplers that have no plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from trilemma.engine.networks import network_conditions, routed, targets_in
from trilemma.guiding.composition import combination
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.guidance import Guidance
from trilemma.numerics.conversion import check_components, convert


class GuidedPrediction:
    """(z, t) → x̂₀, ε̂, v̂ or the score of a denoiser under guidance, all branches in one batch.

    A call pays one evaluation a branch that is evaluated; see `trilemma.interfaces.prediction.Prediction`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance: Guidance,
        cond: Mapping[str, Tensor],
        branches: int,
        network_dtype: torch.dtype,
        networks: Sequence[Denoiser] = (),
    ) -> None:
        self.denoiser = denoiser
        self._targets = targets_in(cond)
        self._unbound = guidance
        self.guidance = guidance.for_batch(self._targets)
        self.cond = network_conditions(cond)
        self.networks = networks or [denoiser]
        self.branches = branches
        self.network_dtype = network_dtype
        self.evaluations = 0
        self._coefficients = cache(self._coefficients_at)

    def __call__(self, z: Tensor, t: float | Tensor, parameterization: str = "x0") -> Tensor:
        """The prediction [B, ...] at states z [B, ...] and time t, in the parameterization asked for.

        A time for each sample is a float64 tensor [B] on the host.
        """
        if isinstance(t, Tensor):
            return self._at_own_times(z, t, parameterization)
        outputs = self._evaluate(z, t, self._evaluated(t))
        self.evaluations += self.guidance.own_evaluations(t)
        combined = combination(self.guidance, z, t, outputs, self.denoiser)
        *p, q = self._coefficients(t, parameterization)
        prediction: Tensor = self._weighted(p, z) + q * combined
        return prediction

    def _weighted(self, p: Sequence[float | Tensor], z: Tensor) -> Tensor:
        """Σ_k p_k z_k of the components of z."""
        parts = z.chunk(len(p), 1) if len(p) > 1 else (z,)
        total = p[0] * parts[0]
        for weight, part in zip(p[1:], parts[1:], strict=True):
            total = total + weight * part
        return total

    def _at_own_times(self, z: Tensor, t: Tensor, parameterization: str) -> Tensor:
        """One call of the network for all; a guidance, whose numbers depend on the time, sample by sample."""
        times = t.tolist()
        needed = [self._evaluated(time) for time in times]
        outputs = self._evaluate(z, t, max(needed))
        self.evaluations += max((self.guidance.own_evaluations(time) for time in times), default=0)
        combined = outputs[0]
        if self.branches > 1 or not self.guidance.linear:
            samples = []
            for b, (time, evaluated) in enumerate(zip(times, needed, strict=True)):
                one = slice(b, b + 1)
                guidance = self._unbound.for_batch({name: of[one] for name, of in self._targets.items()})
                own = [output[one] for output in outputs[:evaluated]]
                samples.append(combination(guidance, z[one], time, own, self.denoiser))
            combined = torch.cat(samples)
        pairs = [self._coefficients(time, parameterization) for time in times]
        table = torch.tensor(pairs, dtype=torch.float64).to(z.device, z.dtype)
        *p, q = table.T.reshape(table.shape[1], -1, *(1,) * (z.dim() - 1))
        prediction: Tensor = self._weighted(p, z) + q * combined
        return prediction

    def _evaluated(self, t: float) -> int:
        return min(self.branches, self.guidance.evaluated(t, self.branches))

    def _evaluate(self, z: Tensor, t: float | Tensor, evaluated: int) -> Sequence[Tensor]:
        """The network's outputs [B, ...] for the first branches, counted."""
        self.evaluations += evaluated
        count = evaluated * len(z)
        state = z.to(self.network_dtype).repeat(evaluated, *(1,) * (z.dim() - 1))
        given = {name: labels[:count] for name, labels in self.cond.items()}
        kind = time_dtype(self.network_dtype)
        if isinstance(t, Tensor):
            time = t.to(z.device, kind).repeat(evaluated)
        else:
            time = torch.full((count,), t, dtype=kind, device=z.device)
        outputs: Tensor = routed(self.networks, len(z))(state, time, **given)
        return outputs.to(z.dtype).chunk(evaluated)

    def _coefficients_at(self, t: float, parameterization: str) -> tuple[float, ...]:
        """p_1 .. p_K and q."""
        process = self.denoiser.process
        check_components(parameterization, process.components)
        w, alpha, sigma = process.last_component(torch.tensor(t, dtype=torch.float64))
        p, q = convert(self.denoiser.parameterization, parameterization, alpha, sigma)
        return *(p * w).tolist(), q.item()
