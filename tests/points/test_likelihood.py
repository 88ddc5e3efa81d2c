"""The bound of the exact denoiser of the rounded mixture is its entropy, on every process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma import lookup
from trilemma.evaluate import Evaluator
from trilemma.interfaces.denoiser import Denoiser
from trilemma.testing import GaussianMixtureDenoiser
from trilemma_plugins.points.dataset import Mixture2D
from trilemma_plugins.points.law import axis_laws

N = 2000


class RoundedMixtureDenoiser(Denoiser):
    """ε̂_K of the last component for points that are nowhere but on the grid, exactly.

    What a state z = μ ⊗ x + L ε says of x is y = x + d ε, d⁻² = μᵀ Σ⁻¹ μ, y = d² μᵀ Σ⁻¹ z. With p_kj the law of
    coordinate j in mode k on the levels a_u, and g_ju = N(y_j; a_u, d²),

        e_kj = Σ_u p_kj(u) g_ju,   x̂_j = Σ_k Π_j e_kj (Σ_u a_u p_kj(u) g_ju/e_kj) / Σ_k Π_j e_kj,   ε̂ = L⁻¹ (z − μ ⊗ x̂).
    """

    def __init__(self, process: str, deviation: float = 0.04) -> None:
        super().__init__(lookup.process(process), "eps", (2, 1, 1))
        self.laws = axis_laws(Mixture2D(n=1).centres, deviation)  # [M, 2, 256]
        self.levels = torch.linspace(-1, 1, 256, dtype=torch.float64)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        mean, cov = self.process.moments(t.double())
        state = z.double().view(len(z), -1, 2)  # [B, K, 2]
        weights = torch.linalg.solve(cov, mean)
        precision = (weights * mean).sum(-1)[:, None]
        y = torch.einsum("bk,bkj->bj", weights, state) / precision
        logits = -(y.unsqueeze(-1) - self.levels).square() * precision.unsqueeze(-1) / 2
        kernel = (logits - logits.amax(-1, keepdim=True)).exp()  # [B, 2, 256]
        evidence = torch.einsum("mju,bju->bmj", self.laws, kernel).clamp_min(1e-300)
        means = torch.einsum("mju,bju->bmj", self.laws * self.levels, kernel) / evidence
        posterior = evidence.log().sum(-1).softmax(-1)
        x = torch.einsum("bm,bmj->bj", posterior, means)
        noise = torch.linalg.solve_triangular(
            torch.linalg.cholesky(cov), state - mean.unsqueeze(-1) * x.unsqueeze(1), upper=False
        )
        return noise[:, -1].view(-1, 2, 1, 1).to(z)


def excess(model: Denoiser, spec: str) -> tuple[float, float]:
    """Bits per dimension above what the law gives the same points, and the half-width of the 95 % interval."""
    evaluator = Evaluator(f"mixture2d:n={N}", "points-features", (spec,))
    found = evaluator.measure_model(model.eval(), N, N, 0)[spec]
    floor = float(Mixture2D("test", n=N).surprisals.mean())
    return found["bpd"] - floor, found["interval"]


@pytest.mark.parametrize("process", ["vdm", "vp-continuous", "edm", "cld"])
def test_the_bound_is_the_entropy(process: str) -> None:
    """Of the best denoiser ½ ∫ E‖ε − ε̂‖² dγ is the information in x (Guo, Shamai, Verdú, 2005): nothing is lost."""
    above, interval = excess(RoundedMixtureDenoiser(process), "bpd:draws=24")
    assert abs(above) < interval
    assert interval < 0.2


def test_a_wrong_deviation_costs_its_divergence() -> None:
    """KL of normals in bits, ½ (r − 1 − ln r), r the quotient of their variances; the draws are the same."""
    right, wrong = (excess(RoundedMixtureDenoiser("vdm", s), "bpd:draws=24")[0] for s in (0.04, 0.06))
    assert wrong - right == pytest.approx(0.183, abs=0.03)


def test_the_flow_of_the_smooth_mixture_is_its_density() -> None:
    """Dequantized points are in the mixture but for a width of one level."""
    means = [centre.view(2, 1, 1) for centre in Mixture2D(n=1).centres]
    smooth = GaussianMixtureDenoiser(
        lookup.process("vdm"), means, 0.04**2 + (2 / 255) ** 2 / 12, parameterization="eps", shape=(2, 1, 1)
    )
    above, interval = excess(smooth, "bpd:method=flow,dequantization=uniform")
    assert abs(above) < interval
    assert interval < 0.05
