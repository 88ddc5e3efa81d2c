"""UniPC: an exponential Adams predictor and corrector that share their evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Tableau
from trilemma_plugins.solvers.dpmpp_multistep import multistep_row
from trilemma_plugins.solvers.exponential import (
    adams_weights,
    alpha_sigma_lambda,
    correction,
    history,
    line_weights,
)


@dataclass(frozen=True)
class UniPC(Sampler):
    """With λ = log(α/σ), over a step from t to s of length h, the prediction x̂₀ⁱ made at the predicted z̃_i:

        z̃_s = (σ_s/σ_t) z_t + α_s Σ_j p_j x̂₀^{t−j}              (p points: the last p)
        z_s = z̃_s + α_s Σ_j (c_j − p_j) x̂₀^{t−j} + α_s c_s x̂₀ˢ    (p + 1 points: those and s)

    p and c are ∫₀ʰ e^(−(h−u)) ℓ_j(u) du. The corrector costs no evaluation: x̂₀ˢ is the next step's. Where one
    difference is all there is (predictor of two points, corrector of p = 1) its weight is not the integral but
    B(h)/2 with B = h (bh1) or 1 − e^(−h) (bh2), which has the same order. As many points as there are at the start; a
    step onto σ = 0 has one. The last state is predicted, not corrected.

    Use: five to fifteen evaluations, where the corrector's order comes for nothing; `variant=bh1` for unguided models.

    Args:
        p: order of the predictor, 1 to 6; the corrector adds one. The first step, corrected to second order, leaves
            an error of third order in the result, so p above 3 gains no order.
        variant: "bh1" or "bh2".

    Raises:
        UsageError: for an option out of range.

    References:
        Zhao et al., UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models,
        arXiv:2302.04867.
    """

    p: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    grid: Grid = "trailing"
    clip: float | None = None

    deterministic = True
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.p, "unipc: p", 1, 6, what="is out of range")
        if self.variant not in ("bh1", "bh2"):
            raise UsageError(f"unipc: variant={self.variant!r} is unknown; give bh1 or bh2")

    @property
    def order(self) -> int:
        return min(self.p + 1, 3)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma, lam = alpha_sigma_lambda(process, times)
        rows = []
        # Change of the state that this row starts from, newest prediction first.
        change: list[float] = []
        for i, t in enumerate(times[:-1].tolist()):
            h, nodes = lam[i + 1] - lam[i], history(lam, i, self.p)
            predictor = self._weights(nodes, h)
            rows.append(multistep_row(t, alpha[i + 1], (sigma[i], sigma[i + 1]), h, 0.0, predictor, change))
            change = []
            if math.isfinite(h):
                change = correction(alpha[i + 1], self._weights([h, *nodes], h), predictor)
        return Tableau(tuple(rows), "x0", self.clip)

    def _weights(self, nodes: list[float], h: float) -> list[float]:
        """Returns the weights of the predictions at the nodes, of which one is 0 and one may be h."""
        if len(nodes) != 2:
            return adams_weights(nodes, h)
        whole = -math.expm1(-h)
        half = (h if self.variant == "bh1" else whole) / 2
        # B(h)/2 · (x̂₀ᵐ − x̂₀⁰)/r with r = λ_m/h.
        return line_weights(nodes, whole, half * h)
