"""The noising process: a linear Gaussian Markov process from data (t = 0) to the prior (t = 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from trilemma.numerics.broadcasting import column
from trilemma.numerics.conversion import convert
from trilemma.numerics.grids import SMALLEST_TIME
from trilemma.registry.options import WithOptions


class Process(WithOptions, ABC):
    """q(z_t | x₀) = N(mean(t) ⊗ x₀, cov(t) ⊗ I), with K components stacked on dim 1 of the state.

    A process writes `moments`; for K = 1 everything else follows. Times and coefficients are float64 tensors on
    the host; states are in the user's dtype on the user's device.

    Attributes:
        components: K; 1 for x alone, 2 for position and velocity.
        table: T for a discrete process that lives at t_k = (k+1)/T, None for a continuous one.
        smallest_time: time at which grids in continuous time stop that would otherwise reach t = 0.
    """

    components: int = 1
    table: int | None = None
    smallest_time: float = SMALLEST_TIME

    @abstractmethod
    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the exact mean [..., K] and covariance [..., K, K] of q(z_t | x₀ = 1), float64, for t [...]."""

    def alpha(self, t: Tensor) -> Tensor:
        """Returns α_t of z_t = α_t x₀ + σ_t ε (K = 1), float64, shape of t."""
        return self.moments(t)[0][..., 0]

    def sigma(self, t: Tensor) -> Tensor:
        """Returns σ_t of z_t = α_t x₀ + σ_t ε (K = 1), float64, shape of t."""
        return self.moments(t)[1][..., 0, 0].sqrt()

    def alpha_sigma(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α, σ of a grid [N], float64. Time 0 is the data, (1, 0), even where a process keeps some noise."""
        data = times == 0
        alpha, sigma = self._scales(times)
        return alpha.masked_fill(data, 1.0), sigma.masked_fill(data, 0.0)

    def last_component(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns w [..., K] and α, σ [...] of w·z = α x₀ + σ ε_K, float64, for t [...] above 0.

        A network of a process of K components predicts the noise of the last one. With z = μ x₀ + L ε, L lower
        triangular and L Lᵀ = Σ, the part of z_K that the other components do not explain is free of their noise:

            w = (−Σ₁₁⁻¹ c, 1),   α = w·μ,   σ = L_KK = √(d − cᵀ Σ₁₁⁻¹ c),   Σ = [[Σ₁₁, c], [cᵀ, d]],

        so that every conversion of one component holds for w·z, α and σ. K = 1: w = 1, z_t = α_t x₀ + σ_t ε.
        """
        if self.components == 1:
            alpha, sigma = self._scales(t)
            return torch.ones_like(alpha).unsqueeze(-1), alpha, sigma
        mean, cov = self.moments(t)
        slopes = torch.linalg.solve(cov[..., :-1, :-1], cov[..., :-1, -1:]).squeeze(-1)
        w = torch.cat([-slopes, torch.ones_like(slopes[..., :1])], -1)
        return w, (w * mean).sum(-1), torch.linalg.cholesky(cov)[..., -1, -1]

    @property
    def earliest_time(self) -> float:
        """The smallest time at which a network is asked: 1/T of a table, `smallest_time` in continuous time."""
        return self.smallest_time if self.table is None else 1 / self.table

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns Ψ, Q [..., K, K] of q(z_t | z_s) = N(Ψ z_s, Q ⊗ I) for s < t.

        K = 1: Ψ = α_t/α_s, Q = σ_t² − Ψ² σ_s².
        """
        self._needs_one_component("transition")
        (mean_s, cov_s), (mean_t, cov_t) = self.moments(s), self.moments(t)
        psi = (mean_t / mean_s).unsqueeze(-1)
        return psi, cov_t - psi.square() * cov_s

    def drift(self, t: Tensor) -> Tensor:
        """Returns F(t) [..., K, K] of dz = F z dt + G dW; K = 1: d log α/dt."""
        self._needs_one_component("drift")
        return self._log_alpha_derivative(t)[..., None, None]

    def diffusion(self, t: Tensor) -> Tensor:
        """Returns G(t) [..., K, K] of dz = F z dt + G dW; K = 1: G² = dσ²/dt − 2 F σ²."""
        self._needs_one_component("diffusion")
        rate = self._log_alpha_derivative(t)
        variance, slope = _value_and_slope(lambda u: self.moments(u)[1][..., 0, 0], t)
        return (slope - 2 * rate * variance).clamp_min(0).sqrt()[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns λ_t = log(α_t²/σ_t²) (K = 1), float64, shape of t."""
        mean, cov = self.moments(t)
        return 2 * mean[..., 0].log() - cov[..., 0, 0].log()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Returns the time t in [0, 1] at which λ_t is `log_snr`, by bisection on the falling λ (K = 1)."""
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):
            middle = (low + high) / 2
            too_clean = self.log_snr(middle) > log_snr
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return (low + high) / 2

    def prior(self, noise: Tensor) -> Tensor:
        """Returns a state at t = 1 from standard normal `noise` [B, K·C, ...]; by default the noise itself."""
        return noise

    def prior_covariance(self) -> Tensor:
        """Returns P [K, K], float64, of the prior N(0, P ⊗ I)."""
        K = self.components
        factor = self.prior(torch.eye(K, dtype=torch.float64).view(K, K, 1, 1)).view(K, K)
        return factor.mT @ factor

    def step_onto_data(self, t: Tensor, parameterization: str) -> tuple[Tensor, Tensor]:
        """Returns A [..., K, K] and B [..., K] of E[z_0 | z_t] = A z_t + B f, f a prediction of E[x₀ | z_t].

        With z_0 = μ₀ x₀ + u, u ~ N(0, Σ₀) independent of x₀ (a velocity; K = 1 has none), z_t = μ x₀ + Ψ u + noise and
        J = Σ₀ Ψᵀ Σ⁻¹,

            E[z_0 | z_t] = μ₀ x̂₀ + J (z_t − μ x̂₀).

        Args:
            t: above 0, float64 [...].
            parameterization: of f, a name from `trilemma.numerics.conversion.PARAMETERIZATIONS`.

        Raises:
            UsageError: for an unknown parameterization.
        """
        w, alpha, sigma = self.last_component(t)
        p, q = convert(parameterization, "x0", alpha, sigma)
        if self.components == 1:
            return p[..., None, None], q[..., None]
        zero = torch.zeros_like(t)
        (mean_0, cov_0), (mean, cov) = self.moments(zero), self.moments(t)
        psi = self.transition(zero, t)[0]
        J = torch.linalg.solve(cov, psi @ cov_0).mT
        of_x0 = mean_0 - (J @ mean.unsqueeze(-1)).squeeze(-1)
        A: Tensor = J + of_x0.unsqueeze(-1) * (p.unsqueeze(-1) * w).unsqueeze(-2)
        return A, q.unsqueeze(-1) * of_x0

    def perturb(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Returns z_t = α_t x₀ + σ_t ε for x₀, ε [B, C, ...] and t [B] (K = 1)."""
        self._needs_one_component("perturb")
        alpha, sigma = self.scales(t, x0)
        return alpha * x0 + sigma * noise

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α_t, σ_t for t [B], in the dtype and on the device of `like` [B, ...], broadcastable against it."""
        alpha, sigma = self._scales(t.to("cpu", torch.float64))
        return column(alpha, like), column(sigma, like)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t and σ_t, of one evaluation of the moments."""
        mean, cov = self.moments(t)
        return mean[..., 0], cov[..., 0, 0].sqrt()

    def _log_alpha_derivative(self, t: Tensor) -> Tensor:
        return _value_and_slope(lambda u: self.moments(u)[0][..., 0].log(), t)[1]

    def _needs_one_component(self, method: str) -> None:
        if self.components != 1:
            raise NotImplementedError(
                f"{type(self).__name__} has {self.components} components and must define {method} itself"
            )


def _value_and_slope(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """f(t) and f'(t) of an elementwise f by forward-mode differentiation."""
    return cast(tuple[Tensor, Tensor], torch.func.jvp(function, (t,), (torch.ones_like(t),)))
