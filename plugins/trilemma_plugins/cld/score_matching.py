"""Score matching in phase space: the velocity at t = 0 is integrated out (`hsm`) or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import check_components, convert
from trilemma.numerics.low_discrepancy import uniform_draws

Weighting = Literal["noise", "score", "likelihood"]


@dataclass(frozen=True)
class HybridScoreMatching(Objective):
    """E w(t) ‖ε_K − ε̂_K‖² for z_t = μ x₀ + L ε drawn from q(z_t | x₀), the velocity at t = 0 integrated out.

    L is the lower Cholesky factor of the covariance. So the score of the velocity depends on the last component's noise
    alone, ∇_v log q(z_t | x₀) = −ℓ ε_K, ℓ = 1/L_KK. ε̂_K is the network's answer converted to ε_K; the residual is that
    of the score s, divided by −ℓ.

        noise: w = 1;     score: w = ℓ², that is ‖s + ℓ ε_K‖²;     likelihood: w = ½ (G Gᵀ)_KK ℓ² = Γβ ℓ² (`cld`).

    Weighted by "likelihood" and with uniform t, it is an estimate of the bound of −log p(x₀), up to terms that the
    network does not change.

    Args:
        weighting: "noise", "score" or "likelihood".
        stratified: draw t = (u + i/B) mod 1, one u a batch, instead of B independent uniforms.
        drop: probability of replacing the conditions of an example by the null ones (2207.12598).

    Raises:
        UsageError: for an unknown weighting or a drop outside [0, 1]; in training, for a network that does not predict
            the noise of the last component.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """

    weighting: Weighting = "noise"
    stratified: bool = True
    drop: float | dict[str, float] = 0.0

    name: ClassVar[str] = "hsm"

    def __post_init__(self) -> None:
        if self.weighting not in ("noise", "score", "likelihood"):
            raise UsageError(
                f"{self.name}: unknown weighting={self.weighting!r}; expected noise, score or likelihood"
            )
        check_drop(self.name, self.drop)

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Returns the mean over batch and pixels of the weighted squared residual."""
        process = denoiser.process
        check_components(denoiser.parameterization, process.components)
        t = self.draw_times(process, len(x0), generator)
        noise = _normal(x0, process.components, generator)
        z, target, weight = self.targets(process, x0, t, noise)
        cond = drop_conditions(denoiser, cond, self.drop, generator)
        answer = network(z, t.to(x0.device, time_dtype(x0.dtype)), **cond).to(x0.dtype)
        w, alpha, sigma = process.last_component(t)
        p, q = convert(denoiser.parameterization, "eps", alpha, sigma)
        ahead = (p.unsqueeze(-1) * w).to(x0).unbind(-1)
        guess = _column(q, x0) * answer + _sum(ahead, z.chunk(process.components, 1))
        return (_column(weight, x0) * (guess - target).square()).mean()

    def draw_times(self, process: Process, batch: int, generator: torch.Generator) -> Tensor:
        """Draws times t [B], float64, uniform between the smallest time and 1."""
        u = uniform_draws(batch, generator, self.stratified)
        return 1 - u * (1 - process.earliest_time)

    def targets(
        self, process: Process, x0: Tensor, t: Tensor, noise: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states z_t [B, K·C, ...], the target ε_K [B, C, ...] and the weight w [B] of its squared residual.

        Args:
            x0: data [B, C, ...].
            t: float64 [B].
            noise: standard normal, K of [B, C, ...] for q(z_t | z_0) and as many for z_0.
        """
        mean, cov = process.moments(t)
        z = _combined(mean.unsqueeze(-1), (x0,)) + _combined(
            torch.linalg.cholesky(cov), noise[: len(mean[0])]
        )
        sigma = process.last_component(t)[2]
        return z, noise[process.components - 1], self._weight(process, t, sigma)

    def _weight(self, process: Process, t: Tensor, sigma: Tensor) -> Tensor:
        """w [B] of a residual in units of σ times that of the score."""
        if self.weighting == "noise":
            return torch.ones_like(t)
        if self.weighting == "score":
            return sigma.pow(-2)
        G = process.diffusion(t)
        return (G @ G.mT)[..., -1, -1] / (2 * sigma.square())


@dataclass(frozen=True)
class DenoisingScoreMatching(HybridScoreMatching):
    """The same of z_t = Ψ z_0 + L ε drawn from q(z_t | z_0), the velocity at t = 0 being drawn, L Lᵀ = Q,

        ∇_v log q(z_t | z_0) = −ε_K/L_KK,   which has the same mean at z_t as that of `hsm` and more variance.

    The residual is in units of the noise of this transition, w as there with ℓ = 1/L_KK of it.

    Args:
        weighting, stratified, drop: as of `hsm`.

    Raises:
        UsageError: as `hsm` does.

    References:
        Dockhorn et al., Score-Based Generative Modeling with Critically-Damped Langevin Diffusion, arXiv:2112.07068.
    """

    name: ClassVar[str] = "dsm"

    def targets(
        self, process: Process, x0: Tensor, t: Tensor, noise: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        K = process.components
        zero = torch.zeros_like(t)
        mean_0, cov_0 = process.moments(zero)
        psi, Q = process.transition(zero, t)
        factor = torch.linalg.cholesky(Q)
        # At t = 0 the components are independent.
        start = torch.diagonal(cov_0, dim1=-2, dim2=-1).sqrt()
        z = _combined((psi @ mean_0.unsqueeze(-1)), (x0,))
        z = z + _combined(psi * start.unsqueeze(-2), noise[K:]) + _combined(factor, noise[:K])
        own, sigma = factor[..., -1, -1], process.last_component(t)[2]
        target = _column(sigma / own, x0) * noise[K - 1]
        return z, target, (own / sigma).square() * self._weight(process, t, own)


def _normal(x0: Tensor, components: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    dtype = torch.promote_types(x0.dtype, torch.float32)
    drawn = torch.randn((2 * components, *x0.shape), generator=generator, dtype=dtype)
    return drawn.to(x0).unbind()


def _combined(matrix: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    """Σ_j matrix[:, i, j] parts_j for each i, one after the other on dim 1; matrix [B, K, J], parts [B, C, ...]."""
    entries = matrix.to(parts[0]).unbind(-2)
    return torch.cat([_sum(line.unbind(-1), parts) for line in entries], 1)


def _sum(weights: tuple[Tensor, ...], parts: tuple[Tensor, ...]) -> Tensor:
    total = _column(weights[0], parts[0]) * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total + _column(weight, part) * part
    return total


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, *[1] * (like.dim() - 1))
