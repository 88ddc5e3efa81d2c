"""Measures the order of convergence of a sampler: along the flow, in law, along one path of the noise, and along one
Brownian path in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Tableau, scalar
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.execution import final_states, run_plan, run_sample
from trilemma.testing.law import sample_law, state_law
from trilemma.testing.local import LOCAL, ExplodingProcess, local_times
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.outcome import Skipped
from trilemma.testing.scalar import GAUSSIAN, MIXTURE, ScalarMixture, alpha_sigma, scalar_flow

# Tolerance of a measured order.
SLACK = 0.3
# Errors below this are rounding.
FLOOR = 1e-10
# The last count is used only where the first two do not show the order yet.
COUNTS = (24, 96, 384)
LAW_COUNTS = (16, 64, 256)
STARTS = (-0.9, 0.4, 1.3)
# Several laws, as the error on one may change its sign.
LAWS = ((0.4, 0.05), (0.4, 0.25), (1.0, 1.5))


@dataclass(frozen=True)
class Measured:
    """An order found by measurement.

    Attributes:
        what: "flow", "law", "path" or "time".
        data, process: where.
        steps, errors: the two measurements.
        order: slope of log error against log steps; infinite at the floor of rounding.
    """

    what: str
    data: str
    process: str
    steps: tuple[int, int]
    errors: tuple[float, float]
    order: float

    def __str__(self) -> str:
        found = "exact" if math.isinf(self.order) else f"{self.order:.2f}"
        return f"{found} on {self.data} under {self.process}"


def measure(
    what: str,
    data: str,
    process: Process,
    declared: float,
    error: Callable[[int], float],
    counts: tuple[int, ...],
) -> Measured:
    """Measures the slope over the first two counts; where it is not clearly above the order, the best of two."""
    name = type(process).__name__.removesuffix("Process")
    errors = [error(steps) for steps in counts[:2]]
    slopes: list[float] = []
    for k in range(1, len(counts)):
        if k == len(errors):
            errors.append(error(counts[k]))
        before, after = errors[k - 1], errors[k]
        slopes.append(math.inf if after < FLOOR else math.log(before / after, counts[k] / counts[k - 1]))
        if slopes[-1] >= declared - SLACK / 2:
            break
    k = 1 + slopes.index(max(slopes))
    return Measured(what, data, name, (counts[k - 1], counts[k]), (errors[k - 1], errors[k]), slopes[k - 1])


def order_along_the_flow(sampler: Sampler, data: ScalarMixture) -> Iterator[Measured]:
    """Measures the order against the exact solution of the probability flow, over uneven times that end above 0."""
    for process in LOCAL:
        yield measure(
            "flow", _name(data), process, sampler.order, partial(flow_error, sampler, process, data), COUNTS
        )


def flow_error(sampler: Sampler, process: Process, data: ScalarMixture, steps: int) -> float:
    """Returns the largest error over several starts."""
    times = local_times(steps)
    alpha, sigma = alpha_sigma(process, times[[0, -1]])
    starts = [z * max(sigma[0], 1.0) for z in STARTS]
    exact = [scalar_flow(data, z, (alpha[0], alpha[1]), (sigma[0], sigma[1])) for z in starts]
    found = final_states(sampler, process, data, times, starts)
    return _largest(a - b for a, b in zip(found, exact, strict=True))


def errors_in_tolerances(sampler: Sampler) -> dict[str, float]:
    """Returns the error of an adaptive sampler on the flow, in units of its tolerance, by "data under process"."""
    assert sampler.tolerance is not None
    return {
        f"{_name(data)} under {type(process).__name__.removesuffix('Process')}": flow_error(
            sampler, process, data, 7
        )
        / sampler.tolerance
        for data in (GAUSSIAN, MIXTURE)
        for process in LOCAL
    }


def order_in_law(sampler: Sampler) -> Iterator[Measured]:
    """Measures the order of the exact mean and standard deviation of a plan's samples from Gaussian data."""
    if not sampler.has_plan:
        raise Skipped("the law of its samples is known exactly only for a sampler with a plan")
    for process in LOCAL:
        yield measure(
            "law", "gaussian", process, sampler.order, partial(law_error, sampler, process), LAW_COUNTS
        )


def law_error(sampler: Sampler, process: Process, steps: int) -> float:
    times = local_times(steps)
    tableau = sampler.plan(process, times)
    (alpha,), (sigma,) = alpha_sigma(process, times[-1:])
    errors = []
    for mean, variance in LAWS:
        found = sample_law(tableau, process, mean, variance)
        errors += [found[0] - alpha * mean, math.sqrt(found[1]) - math.sqrt(alpha**2 * variance + sigma**2)]
    return _largest(errors)


def order_in_phase_space(sampler: Sampler) -> Measured:
    """Measures the order of the exact mean and covariance of position and velocity, drawn or carried along the flow."""
    process = PhaseProcess()
    return measure(
        "law", "gaussian", process, sampler.order, partial(phase_law_error, sampler, process), LAW_COUNTS
    )


def phase_law_error(sampler: Sampler, process: Process, steps: int) -> float:
    times = local_times(steps)
    tableau = sampler.plan(process, times)
    mu, cov = process.moments(times[-1])
    errors = []
    for mean, variance in LAWS:
        found, spread = state_law(tableau, process, mean, variance)
        errors += (found - mean * mu).tolist()
        errors += (spread - variance * mu[:, None] * mu - cov).flatten().tolist()
    return _largest(errors)


def phase_law_error_of_sample(sampler: Sampler, process: Process) -> float:
    """Returns the error in law of a deterministic sampler without a plan: three states give its map z → A z + b."""
    times = local_times(7)
    (mu_t, cov_t), (mu, cov) = (process.moments(t) for t in times[[0, -1]])
    errors = []
    for mean, variance in LAWS:
        model = GaussianMixtureDenoiser(process, (mean,), variance)

        def moved(z: Tensor, model: GaussianMixtureDenoiser = model) -> Tensor:
            return run_sample(sampler, model, times, z, lambda _: torch.zeros_like(z))

        b, A = affine_map(moved)
        errors += (mean * (A @ mu_t - mu) + b).tolist()
        spread = variance * mu_t[:, None] * mu_t + cov_t
        errors += (A @ spread @ A.mT - variance * mu[:, None] * mu - cov).flatten().tolist()
    return _largest(errors)


def affine_map(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Returns b [J] and A [J, 2] of z → A z + b on states [B, 2, 1, 1]."""
    starts = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double().view(3, 2, 1, 1)
    origin, *ends = function(starts).flatten(1)
    return origin, torch.stack([end - origin for end in ends], -1)


PATHS = 64
PATH_COUNTS = (16, 64, 256)


def order_along_a_path(sampler: Sampler, declared: float) -> Iterator[Measured]:
    """Measures the order of the root mean square distance to the sample of twice as many steps with the same noise."""
    if not sampler.has_plan:
        raise Skipped("paths of the noise are coupled only for a sampler with a plan")
    for process in LOCAL:
        yield measure(
            "path", "mixture", process, declared, partial(path_error, sampler, process), PATH_COUNTS
        )


def path_error(sampler: Sampler, process: Process, steps: int) -> float:
    fine_times = local_times(2 * steps)
    fine, coarse = (sampler.plan(process, times) for times in (fine_times, fine_times[::2]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(PATHS, 2 * steps, dtype=torch.float64, generator=generator)
    starts = torch.randn(PATHS, dtype=torch.float64, generator=generator) * process.sigma(fine_times[0])
    fine_noise, coarse_noise = _spread(fine, noise), _spread(coarse, coupled(fine, noise))
    squares = [
        (run_plan(fine, process, MIXTURE, z, a) - run_plan(coarse, process, MIXTURE, z, b)) ** 2
        for z, a, b in zip(starts.tolist(), fine_noise.tolist(), coarse_noise.tolist(), strict=True)
    ]
    return math.sqrt(sum(squares) / PATHS)


def coupled(fine: Tableau, noise: Tensor) -> Tensor:
    """Returns the noise of steps twice as long: Σ_i (Π_{j>i} A_j) C_i ξ_i of each pair of fine steps, normalised.

    Args:
        fine: each of its steps adds noise in its last row, if at all.
        noise: ξ [paths, steps], standard normal.
    """
    A, C = _steps(fine, noise.shape[1])
    first, last = A[1::2] * C[0::2], C[1::2]
    whole = (first.square() + last.square()).sqrt()
    mixed = (first * noise[:, 0::2] + last * noise[:, 1::2]) / whole
    return torch.where(whole > 0, mixed, noise[:, 1::2])


def _steps(tableau: Tableau, steps: int) -> tuple[Tensor, Tensor]:
    """A and C of the last row of every step."""
    rows, stages = tableau.rows, len(tableau.rows) // steps
    silent = all(row.C == 0 for r, row in enumerate(rows) if (r + 1) % stages)
    whole = all(row.base == stages - 1 for row in rows[stages - 1 :: stages])
    if stages * steps != len(rows) or not silent or not whole or any(row.D for row in rows):
        raise Skipped("its noise is not added at the end of whole steps, so that paths cannot be coupled")
    last = rows[stages - 1 :: stages]
    A, C = ([scalar(entry) for entry in column] for column in ([r.A for r in last], [r.C for r in last]))
    return torch.tensor(A, dtype=torch.float64), torch.tensor(C, dtype=torch.float64)


def _spread(tableau: Tableau, noise: Tensor) -> Tensor:
    """Noise a step as noise a row."""
    return noise.repeat_interleave(len(tableau.rows) // noise.shape[1], 1)


TIMED = 128
TIME_COUNTS = (20, 80, 160)
TIME_REFERENCE = 1280


def order_in_time(sampler: Sampler, declared: float) -> Iterator[Measured]:
    """Measures the order of the root mean square distance to the samples of 1280 steps under `noise="brownian"`.

    That is of whole runs by the engine, from the prior to the data.
    """
    if not sampler.has_plan or not isinstance(sampler.grid, str):
        raise Skipped(
            "a path in time is read at any number of steps only by a sampler with a plan and a grid"
        )
    process = ExplodingProcess()
    reference = brownian_samples(sampler, process, TIME_REFERENCE)

    def error(steps: int) -> float:
        return float((brownian_samples(sampler, process, steps) - reference).square().mean().sqrt())

    yield measure("time", "mixture", process, declared, error, TIME_COUNTS)


def brownian_samples(sampler: Sampler, process: Process, steps: int) -> Tensor:
    """Returns samples [n] of the exact mixture along the paths of one seed, float64."""
    model = MIXTURE.denoiser(process)
    options: dict[str, Any] = {
        "sampler": sampler,
        "steps": steps,
        "batch_size": TIMED,
        "dtype": torch.float32,
    }
    return sample(model, TIMED, noise="brownian", **options).samples.flatten().double()


def measured_orders(sampler: Sampler) -> list[Measured]:
    """Measures every order that its declarations promise."""
    found: list[Measured] = []
    if sampler.tolerance is not None:
        # There are no steps that could be made smaller.
        return found
    if sampler.deterministic:
        for data in (GAUSSIAN, MIXTURE):
            found += order_along_the_flow(sampler, data)
    elif sampler.has_plan:
        found += order_in_law(sampler)
    if sampler.strong_order is not None and sampler.has_plan:
        found += order_along_a_path(sampler, sampler.strong_order)
        found += order_in_time(sampler, sampler.strong_order)
    return found


def _name(data: ScalarMixture) -> str:
    return "gaussian" if data == GAUSSIAN else "mixture"


def _largest(errors: Iterator[float] | list[float]) -> float:
    worst = max(map(abs, errors))
    assert math.isfinite(worst), "the result is not finite"
    return worst
