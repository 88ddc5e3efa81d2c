"""Exponential Adams methods for the probability-flow equation in phase space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau, matrix_row
from trilemma_plugins.cld.exponential import along_the_drift, around_a_point


@dataclass(frozen=True)
class GDDIM(Sampler):
    """The probability flow dz = (F z − ½ G Gᵀ ∇ log p) dt written as dz = (M z + k f) dt, f the prediction, and

        z_s = Φ(s, t) z_t + ∫ Φ(s, τ) k(τ) p(τ) dτ,   τ from t down to s,

    p the polynomial in τ through the last `points` f, Φ the flow of M. In x̂₀, with ∇ log p = (α x̂₀ − w·z)/σ² by the
    last component (`Process.last_component`), M = F + ½ G Gᵀ Σ⁻¹ is the motion of a state around a known point: Φ
    contracts, and data that are one point are reached in any number of steps. In ε̂, ∇ log p = −ε/σ and M = F; the
    flow of F grows backwards in time, and the error of few steps grows with it. A step onto the data
    returns E[z_0 | z]. The first steps use as many points as there are. With three points the error of the first step
    would stay, so that step is taken again with the second prediction, at no further evaluation.

    Use: 20 to 50 evaluations of a CLD-trained model.

    Args:
        points: of the polynomial, 1 to 3; the order.
        prediction: "x0" or "eps", what the polynomial goes through.

    Raises:
        UsageError: for an option out of range.

    References:
        Zhang, Tao and Chen, gDDIM: Generalized Denoising Diffusion Implicit Models, arXiv:2206.05564.
    """

    points: int = 2
    prediction: Literal["x0", "eps"] = "x0"
    grid: Grid = "squares"

    deterministic = True
    components = (2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.points, "gddim: points", 1, 3, what="is out of range")
        if self.prediction not in ("x0", "eps"):
            raise UsageError(f"gddim: prediction={self.prediction!r} is unknown; give x0 or eps")

    @property
    def order(self) -> int:
        return self.points

    def plan(self, process: Process, times: Tensor) -> Tableau:
        t, step = times.tolist(), around_a_point if self.prediction == "x0" else along_the_drift
        rows: list[Row] = []
        for i in range(len(t) - 1):
            if t[i + 1] == 0:
                A, B = process.step_onto_data(times[i], self.prediction)
                rows.append(matrix_row(t[i], A, [B]))
                continue
            nodes = t[max(i + 1 - self.points, 0) : i + 1][::-1]
            A, terms = step(process, t[i], t[i + 1], nodes)
            if self.points == 3 and i == 1:
                first, again = step(process, t[0], t[1], nodes)
                terms = [term + A @ more for term, more in zip(terms, again, strict=True)]
                rows.append(matrix_row(t[i], A @ first, terms, base=1))
            else:
                rows.append(matrix_row(t[i], A, terms))
        return Tableau(tuple(rows), self.prediction, components=process.components)
