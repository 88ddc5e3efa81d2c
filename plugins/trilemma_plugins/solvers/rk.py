"""The probability flow by adaptive embedded Runge–Kutta pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.numerics.runge_kutta import PAIRS, integrate
from trilemma_plugins.solvers.rk_path import landed, path_between


@dataclass(frozen=True)
class RK(Sampler):
    """The probability flow in the angle φ of α = r cos φ, σ = r sin φ, where it has no singular end,

        d(z/r)/dφ = v̂/r,   v̂ = α ε̂ − σ x̂₀,

    and of several components R⁻¹ z in √t, R Rᵀ the covariance of z for data of variance 1
    (`trilemma_plugins.solvers.rk_path`), by an embedded pair of Runge–Kutta methods. With y the integrated variable, a
    step h is accepted where its error e, the root mean square over the sample's elements of the pair's difference over
    tolerance·(1 + |y|), is at most 1; the next is

        h ← h · 0.9 e^(−0.7/q) e_before^(0.4/q)

    (PI control, q the order of the error; see `trilemma.numerics.runge_kutta.integrate`). Steps are a sample's own, so
    no other sample of the batch changes it; the batch runs until its last sample arrives. The last step, from the
    smallest time a network is asked at onto the data, returns E[z_0 | z], x̂₀ of one component. The number of steps
    asked for decides the first step's length. Inversion, of one component, takes the same path upwards.

    Use: reference solutions, likelihoods, and to see how many evaluations a model's flow deserves. The error decides
    the step, so this sampler reads a value on the host once a step and is neither fused nor captured.

    Args:
        pair: "bosh3" (Bogacki & Shampine 3(2), 3 evaluations a step) or "dopri5" (Dormand & Prince 5(4), 6).
        tolerance: relative and absolute tolerance of a step.
        grid: of times, see `trilemma.interfaces.spacing`, whose ends alone count.

    Raises:
        UsageError: for an option out of range.
        TrilemmaError: where 10,000 steps do not arrive, at sampling.

    References:
        Dormand & Prince, A family of embedded Runge–Kutta formulae, J. Comput. Appl. Math. 6, 1980; Söderlind,
        Automatic control and adaptive time-stepping, Numer. Algorithms 31, 2002; Song et al., arXiv:2011.13456.
    """

    pair: Literal["bosh3", "dopri5"] = "dopri5"
    tolerance: float = 1e-3
    grid: Grid = "trailing"

    deterministic = True
    fullgraph = False
    components = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair not in PAIRS:
            raise UsageError(f"rk: pair={self.pair!r} is unknown; expected one of {', '.join(PAIRS)}")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"rk: tolerance={self.tolerance!r} is out of range; give a number from 0 to 1")

    @property
    def order(self) -> int:
        return PAIRS[self.pair].order

    def nfe(self, steps: int) -> int:
        """Returns the evaluations of one accepted step and of the one onto the data."""
        return len(PAIRS[self.pair].nodes) + 1

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        process = predict.denoiser.process
        begin, end = float(times[0]), float(times[-1])
        stop = end or min(process.earliest_time, begin / 2)
        state = z if z.dtype == torch.float64 else z.float()
        path = path_between(process, begin, stop)

        def seen(attempt: int, u: Tensor, y: Tensor) -> None:
            t, state = path.state(u, y)
            report(attempt, float(t.max()), state)

        one = torch.ones(len(z), dtype=torch.float64)
        y, done = integrate(
            PAIRS[self.pair],
            partial(path.slope, predict),
            path.coordinates(path.first * one, state),
            (path.first, path.last),
            (path.last - path.first) / (len(times) - 1),
            self.tolerance,
            report=seen,
        )
        state = path.state(path.last * one, y)[1]
        if end == 0:
            state = landed(predict, state, stop)
            report(done + 1, 0.0, state)
        return state.to(z.dtype)
