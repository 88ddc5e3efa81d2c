"""The guided prediction as a function, for samplers that have no plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from trilemma.composition import combination
from trilemma.conversion import convert
from trilemma.denoiser import Denoiser
from trilemma.guidance import Guidance
from trilemma.routing import network_conditions, routed, targets_in


class Prediction:
    """(z, t) → x̂₀, ε̂, v̂ or the score of a denoiser under guidance, all branches in one batch.

    Attributes:
        evaluations: of a network so far that a sample pays; a call pays one a branch that is evaluated.
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
        self.guidance = guidance.for_batch(targets_in(cond))
        self.cond = network_conditions(cond)
        self.networks = networks or [denoiser]
        self.branches = branches
        self.network_dtype = network_dtype
        self.evaluations = 0
        self._coefficients = cache(self._coefficients_at)

    def __call__(self, z: Tensor, t: float, parameterization: str = "x0") -> Tensor:
        """The prediction [B, ...] at states z [B, ...] and time t, in the parameterization asked for."""
        evaluated = min(self.branches, self.guidance.evaluated(t, self.branches))
        self.evaluations += evaluated
        count = evaluated * len(z)
        state = z.to(self.network_dtype).repeat(evaluated, *(1,) * (z.dim() - 1))
        given = {name: labels[:count] for name, labels in self.cond.items()}
        time = torch.full((count,), t, dtype=torch.float32, device=z.device)
        network = routed(self.networks, len(z))
        outputs = network(state, time, **given).to(z.dtype).chunk(evaluated)
        combined = combination(self.guidance, z, t, outputs, self.denoiser)
        p, q = self._coefficients(t, parameterization)
        prediction: Tensor = p * z + q * combined
        return prediction

    def _coefficients_at(self, t: float, parameterization: str) -> tuple[float, float]:
        time = torch.tensor(t, dtype=torch.float64)
        process = self.denoiser.process
        p, q = convert(
            self.denoiser.parameterization, parameterization, process.alpha(time), process.sigma(time)
        )
        return p.item(), q.item()
