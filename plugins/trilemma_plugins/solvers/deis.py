"""DEIS: Adams–Bashforth in ε̂ with polynomials in log ρ, ρ or t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.numerics.lagrange import lagrange_polynomials
from trilemma_plugins.solvers.exponential import adams_weights, alpha_sigma_lambda, history

_PLACES, _MASSES = np.polynomial.legendre.leggauss(48)


@dataclass(frozen=True)
class DEIS(Sampler):
    """With ρ = σ/α and the polynomial p through the last ε̂:

        z_s = (α_s/α_t) z_t + α_s ∫ p dρ,   ρ from ρ_t to ρ_s

    p is a polynomial in log ρ (exponential Adams–Bashforth), in ρ (ρAB) or in t (tAB), integrated exactly, for t
    by parts and by quadrature. As many points as there are at the start; in log ρ a step onto σ = 0 has one. Where
    α = 0 at the start ε̂ says nothing of x₀ and the polynomial in log ρ is put through x̂₀ instead.

    Use: ten steps and fewer of an ε- or v-trained model, one evaluation each; `points=3` is the usual choice, and
    `prediction=x0` is steadier under strong guidance.

    Args:
        points: of the polynomial, 1 to 4. The first step's own error is of second order and stays in
            the result, so above 2 the error shrinks but its order is 2.
        variable: "log-rho", "rho" or "t".
        prediction: "eps", or "x0" to put the polynomial (in log ρ) through x̂₀: the equation is then z/σ = ∫ x̂₀ d(α/σ).

    Raises:
        UsageError: for an option out of range.

    References:
        Zhang and Chen, Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902.
    """

    points: int = 3
    variable: Literal["log-rho", "rho", "t"] = "log-rho"
    prediction: Literal["eps", "x0"] = "eps"
    grid: Grid = "trailing"
    clip: float | None = None

    deterministic = True
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.points, "deis: points", 1, 4, what="is out of range")
        if self.variable not in ("log-rho", "rho", "t"):
            raise UsageError(f"deis: variable={self.variable!r} is unknown; give log-rho, rho or t")
        if self.prediction not in ("eps", "x0"):
            raise UsageError(f"deis: prediction={self.prediction!r} is unknown; give eps or x0")
        if self.prediction == "x0" and self.variable != "log-rho":
            raise UsageError("deis: prediction=x0 goes with variable=log-rho alone; leave variable out")

    @property
    def order(self) -> int:
        return min(self.points, 2)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        by_data = self.prediction == "x0" or alpha[0] == 0
        rows = []
        for i, t in enumerate(times[:-1].tolist()):
            if by_data:
                A, scale = sigma[i + 1] / sigma[i], alpha[i + 1]
                weights = adams_weights(history(lam, i, self.points), lam[i + 1] - lam[i])
            else:
                A, scale = alpha[i + 1] / alpha[i], alpha[i + 1]
                weights = self._noise_weights(process, times, alpha, sigma, lam, i)
            rows.append(Row(t, A, tuple((lag, scale * w) for lag, w in enumerate(weights))))
        return Tableau(tuple(rows), "x0" if by_data else "eps", self.clip)

    def _noise_weights(
        self,
        process: Process,
        times: Tensor,
        alpha: list[float],
        sigma: list[float],
        lam: list[float],
        i: int,
    ) -> list[float]:
        """∫ ℓ_j dρ of the last predictions, newest first."""
        rho = [s / a for s, a in zip(sigma[: i + 2], alpha[: i + 2], strict=True)]
        if self.variable == "log-rho":
            nodes = history(lam, i, self.points)
            if len(nodes) == 1:
                return [rho[i + 1] - rho[i]]
            # dρ = −ρ du with ρ = ρ_s e^(h−u): the weights of rate −1
            return [rho[i + 1] * w for w in adams_weights(nodes, lam[i + 1] - lam[i], -1.0)]
        if self.variable == "rho":
            places, end = rho, rho[i + 1]
        else:
            places, end = times.tolist(), float(times[i + 1])
        nodes = places[max(i + 1 - self.points, 0) : i + 1][::-1]
        inner = (end + nodes[0]) / 2 + (end - nodes[0]) / 2 * _PLACES
        level = inner if self.variable == "rho" else _rho(process, inner)
        masses = (end - nodes[0]) / 2 * _MASSES
        # by parts, [ℓ ρ] − ∫ ℓ' ρ dx: no derivative of ρ is needed
        return [
            float(
                basis(end) * rho[i + 1] - basis(nodes[0]) * rho[i] - masses @ (basis.deriv()(inner) * level)
            )
            for basis in lagrange_polynomials(nodes)
        ]


def _rho(process: Process, t: NDArray[np.float64]) -> NDArray[np.float64]:
    alpha, sigma = process.alpha_sigma(torch.from_numpy(t))
    return (sigma / alpha).numpy()
