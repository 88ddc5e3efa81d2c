"""Samplers with one fault each, made from a sampler that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau, scalar


def first_order(times: Tensor, process: Process) -> list[Row]:
    """Returns z_s = (σ_s/σ_t) z_t + (α_s − α_t σ_s/σ_t) x̂₀, the Euler step of the flow in (z/α, σ/α)."""
    alpha, sigma = process.alpha_sigma(times)
    ratio = sigma[1:] / sigma[:-1]
    columns = torch.stack([times[:-1], ratio, alpha[1:] - alpha[:-1] * ratio], -1).tolist()
    return [Row(t, A, ((0, B),)) for t, A, B in columns]


@dataclass(frozen=True)
class Right(Sampler):
    """The Euler step, right in everything."""

    grid: str = "trailing"

    order = 1
    deterministic = True
    exact: tuple[str, ...] = ("point",)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        return Tableau(tuple(first_order(times, process)), "x0")


@dataclass(frozen=True)
class LateStart(Right):
    """Takes the state at the prior for one of a later time."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        first, *others = first_order(times, process)
        return Tableau((replace(first, t=0.9 * first.t), *others), "x0")


@dataclass(frozen=True)
class RightByHand(Right):
    """The same without a plan, so that the state is in its own hands."""

    # Its coefficients are plain numbers.
    fullgraph = False

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        rows = first_order(times, predict.denoiser.process)
        for step, row in enumerate(rows):
            z = scalar(row.A) * z + scalar(row.B[0][1]) * predict(z, row.t)
            report(step + 1, float(times[step + 1]), z)
        return z


@dataclass(frozen=True)
class ClaimsOneGraph(RightByHand):
    """Says that it compiles into one graph, and reads its coefficients on the host."""

    fullgraph = True


@dataclass(frozen=True)
class OneGraph(Right):
    """The Euler step without a plan and without a number."""

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        alpha, sigma = predict.denoiser.process.alpha_sigma(times)
        ratio = sigma[1:] / sigma[:-1]
        B = alpha[1:] - alpha[:-1] * ratio
        for step in range(len(times) - 1):
            x0 = predict(z, times[step].expand(len(z)))
            z = ratio[step].to(z.dtype) * z + B[step].to(z.dtype) * x0
            report(step + 1, 0.0, z)
        return z


@dataclass(frozen=True)
class RightWithNoise(Right):
    """Ancestral steps: of the noise that q(z_s | z_t, x̂₀) has, as much as there is."""

    deterministic = False
    strong_order: float | None = 1.0
    exact: tuple[str, ...] = ()

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = process.alpha_sigma(times)
        ratio = alpha[:-1] / alpha[1:] * (sigma[1:] / sigma[:-1]).square()
        noise = sigma[1:] * (1 - ratio * alpha[:-1] / alpha[1:]).clamp_min(0).sqrt()
        columns = torch.stack([times[:-1], ratio, alpha[1:] - alpha[:-1] * ratio, noise], -1).tolist()
        return Tableau(tuple(Row(t, A, ((0, B),), C) for t, A, B, C in columns), "x0")


@dataclass(frozen=True)
class ClaimsStrongOrderTwo(RightWithNoise):
    """Says that its paths converge with the second order."""

    strong_order: float | None = 2.0


@dataclass(frozen=True)
class AlternatingNoise(RightWithNoise):
    """Turns the sign of the noise in every other step: the law is right, and no path converges."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = super().plan(process, times).rows
        return Tableau(tuple(replace(row, C=(-1) ** r * scalar(row.C)) for r, row in enumerate(rows)), "x0")


@dataclass(frozen=True)
class LoudByHand(RightWithNoise):
    """Ancestral steps without a plan, with half as much noise again."""

    loudness = 1.5
    fullgraph = False

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        for step, row in enumerate(self.plan(predict.denoiser.process, times).rows):
            B, C = scalar(row.B[0][1]), self.loudness * scalar(row.C)
            z = scalar(row.A) * z + B * predict(z, row.t) + C * noise(step)
            report(step + 1, float(times[step + 1]), z)
        return z


@dataclass(frozen=True)
class RightWithNoiseByHand(LoudByHand):
    """The same with the right noise."""

    loudness = 1.0


@dataclass(frozen=True)
class LooksAtTheFirst(RightByHand):
    """Reads the first state of the batch, which need not be there."""

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        z[0].isnan()
        return super().sample(predict, z, times, noise, report)


@dataclass(frozen=True)
class ClaimsOrderTwo(Right):
    """A first-order method that says 2."""

    order = 2


@dataclass(frozen=True)
class WrongPreviousTime(Right):
    """Steps to t − 1/S, whatever time the grid has next."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        t = times[:-1]
        s = (t - 1 / len(t)).clamp_min(0)
        rows = [first_order(torch.stack(pair), process)[0] for pair in zip(t, s, strict=True)]
        return Tableau(tuple(rows), "x0")


@dataclass(frozen=True)
class EmptyHistory(Right):
    """Two-step Adams–Bashforth whose first step takes the missing prediction for zero."""

    order = 2
    exact = ()

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = first_order(times, process)
        return Tableau(tuple(_extrapolated(row, lags=2 if r else 1) for r, row in enumerate(rows)), "x0")


@dataclass(frozen=True)
class UnfilledHistory(EmptyHistory):
    """The same, whose first step reads the prediction before the first."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        return Tableau(tuple(_extrapolated(row, lags=2) for row in first_order(times, process)), "x0")


def _extrapolated(row: Row, lags: int) -> Row:
    B = scalar(row.B[0][1])
    return replace(row, B=((0, 1.5 * B), (1, -0.5 * B))[:lags])


@dataclass(frozen=True)
class EvenSteps(Right):
    """A two-step method with the weights of even steps, and says 2."""

    order = 2

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = first_order(times, process)
        alpha, sigma = process.alpha_sigma(times)
        for n in range(1, len(rows)):
            if float(alpha[n - 1]) and float(sigma[n + 1]):
                weight = scalar(rows[n].B[0][1])
                rows[n] = replace(rows[n], B=((0, 1.5 * weight), (1, -0.5 * weight)))
        return Tableau(tuple(rows), "x0")


@dataclass(frozen=True)
class LongMemory(Right):
    """Goes back to its first prediction at the end, as if to close a circle."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = first_order(times, process)
        if len(rows) > 1:
            rows[-1] = replace(rows[-1], B=(*rows[-1].B, (len(rows) - 1, 1e-9)))
        return Tableau(tuple(rows), "x0")


@dataclass(frozen=True)
class NoiseAtEtaZero(Right):
    """Adds the noise of η = 1 though it is deterministic."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = first_order(times, process)
        sigma = process.alpha_sigma(times)[1][1:].tolist()
        return Tableau(tuple(replace(row, C=0.1 * s) for row, s in zip(rows, sigma, strict=True)), "x0")


@dataclass(frozen=True)
class BatchSeeds(RightByHand):
    """Draws its noise from a generator, for the batch as a whole and not by the sample."""

    deterministic = False
    exact = ()

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        generator = torch.Generator().manual_seed(len(z))
        z = z + 1e-3 * torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
        return super().sample(predict, z + 1e-3 * noise(0), times, noise, report)


@dataclass(frozen=True)
class InPlace(RightByHand):
    """Steps in the memory of the state it was given."""

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        return z.copy_(super().sample(predict, z, times, noise, report))


@dataclass(frozen=True)
class OneCallMore(Right):
    """Pays one evaluation less than it says."""

    def nfe(self, steps: int) -> int:
        return steps + 1


@dataclass(frozen=True)
class DividesBySigma(Right):
    """Writes the step through ε̂/σ_s, which is not there at the data."""

    def plan(self, process: Process, times: Tensor) -> Tableau:
        sigma = process.alpha_sigma(times)[1][1:].tolist()
        return Tableau(
            tuple(
                replace(row, A=float(torch.tensor(row.A) * s / torch.tensor(s)))
                for row, s in zip(first_order(times, process), sigma, strict=True)
            ),
            "x0",
        )


@dataclass(frozen=True)
class IgnoresTolerance(RightByHand):
    """Says that it keeps to a tolerance, and takes the steps of the grid."""

    tolerance: float = 1e-4


@dataclass(frozen=True)
class HidesNaN(RightByHand):
    """Puts zeros in the place of NaN."""

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        return super().sample(predict, z, times, noise, report).nan_to_num()
