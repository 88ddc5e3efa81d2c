"""Checks of every noising process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.testing.empty import without_a_time


def process_checks(process: Process) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    yield "moments are exact and well-formed", lambda: _moments(process)
    yield "transitions carry the moments", lambda: _transitions(process)
    yield "transitions compose", lambda: _semigroup(process)
    yield "the prior has the law of t = 1", lambda: _prior(process)
    yield "drift and diffusion carry the moments", lambda: _equation(process)
    if process.components == 1:
        yield "signal falls into noise", lambda: _falls(process)
        yield "time_of_log_snr inverts log_snr", lambda: _inverse(process)
        yield "perturb draws the moments", lambda: _perturb(process)
    yield "an empty batch gives none", lambda: without_a_time(process)


def _times(process: Process) -> Tensor:
    """Rising times in (0, 1]: some of a table's, or evenly spaced ones."""
    if process.table is None:
        return torch.linspace(0.02, 1, 50, dtype=torch.float64)
    return (
        torch.linspace(0, process.table - 1, min(50, process.table), dtype=torch.float64).round().add(1)
        / process.table
    )


def _moments(process: Process) -> str:
    t, K = _times(process), process.components
    mean, cov = process.moments(t)
    assert mean.dtype == cov.dtype == torch.float64, f"moments are {mean.dtype} and {cov.dtype}, not float64"
    assert mean.shape == (len(t), K), f"mean has shape {tuple(mean.shape)}, not {(len(t), K)}"
    assert cov.shape == (len(t), K, K), f"cov has shape {tuple(cov.shape)}, not {(len(t), K, K)}"
    assert bool(mean.isfinite().all() and cov.isfinite().all()), "moments are not finite"
    smallest = float(torch.linalg.eigvalsh(cov).min())
    assert smallest > 0, f"cov has an eigenvalue {smallest:.2g}, which is not positive"
    for one in (t[0], t[-1]):
        alone = process.moments(one)
        assert alone[0].shape == (K,), f"a single time gives a mean of shape {tuple(alone[0].shape)}"
    return f"K = {K}"


def _transitions(process: Process) -> str:
    """With q(z_t | z_s) = N(Ψ z_s, Q): mean_t = Ψ mean_s and cov_t = Ψ cov_s Ψᵀ + Q."""
    s, t = _times(process)[:-1], _times(process)[1:]
    if not len(s):
        return "one step only"
    psi, Q = process.transition(s, t)
    (mean_s, cov_s), (mean_t, cov_t) = process.moments(s), process.moments(t)
    carried = (psi @ mean_s.unsqueeze(-1)).squeeze(-1), psi @ cov_s @ psi.mT + Q
    error = max(float((a - b).abs().max()) for a, b in zip(carried, (mean_t, cov_t), strict=True))
    assert error < 1e-9, f"moments carried from s to t are {error:.2g} off"
    return f"to {error:.1g}"


def _semigroup(process: Process) -> str:
    """From r to t by way of s: Ψ_rt = Ψ_st Ψ_rs and Q_rt = Ψ_st Q_rs Ψ_stᵀ + Q_st."""
    times = _times(process)
    if len(times) < 3:
        return "two steps at most"
    r, s, t = times[:-2], times[1:-1], times[2:]
    (first, noise), (then, more), (whole, all_of_it) = (
        process.transition(*pair) for pair in ((r, s), (s, t), (r, t))
    )
    pairs = (then @ first, whole), (then @ noise @ then.mT + more, all_of_it)
    error = max(float((a - b).abs().max()) for a, b in pairs)
    assert error < 1e-9, f"two transitions are {error:.2g} off the one that spans them"
    return f"to {error:.1g}"


def _prior(process: Process) -> str:
    """Standard normal noise becomes a state of the covariance at t = 1; what signal is left there is let go."""
    K = process.components
    mean, cov = process.moments(torch.ones((), dtype=torch.float64))
    noise = torch.eye(K, dtype=torch.float64).view(K, K, 1, 1)
    kept = noise.clone()
    state = process.prior(noise)
    assert torch.equal(noise, kept), "prior writes to the noise it is given"
    assert state.shape == noise.shape, f"prior gives shape {tuple(state.shape)}, not {tuple(noise.shape)}"
    found = state.view(K, K).mT @ state.view(K, K)
    error = float((found - cov).abs().max() / cov.abs().max())
    # This allows for data of variance 1.
    allowed = float(mean.square().max() / cov.abs().max()) + 1e-3
    assert error <= allowed, f"the covariance of the prior is {error:.2g} off that at t = 1, relatively"
    return f"to {error:.1g}"


def _perturb(process: Process) -> str:
    t = _times(process)[[0, -1]]
    shape = (2, 1, 1, 1)
    x0, noise = torch.full(shape, 0.7, dtype=torch.float64), torch.full(shape, -1.3, dtype=torch.float64)
    found = process.perturb(x0, t, noise).flatten()
    error = float((found - (0.7 * process.alpha(t) - 1.3 * process.sigma(t))).abs().max())
    assert error < 1e-12, f"perturb is {error:.2g} off α x₀ + σ ε"
    return f"to {error:.1g}"


def _falls(process: Process) -> str:
    log_snr = process.log_snr(_times(process))
    assert not bool(log_snr.isnan().any()), "log_snr is not a number somewhere"
    assert bool(log_snr[:-1].isfinite().all()), "log_snr is infinite before t = 1"
    assert bool((log_snr.diff() < 0).all()), "log_snr does not fall strictly in time"
    return f"log SNR from {float(log_snr[0]):.3g} to {float(log_snr[-1]):.3g}"


def _inverse(process: Process) -> str:
    t = _times(process)
    # Where nothing is left of the data, λ is −∞ and cannot be inverted.
    t = t[process.log_snr(t).isfinite()]
    error = float((process.time_of_log_snr(process.log_snr(t)) - t).abs().max())
    assert error < 1e-6, f"time_of_log_snr(log_snr(t)) is {error:.2g} away from t"
    return f"to {error:.1g}"


def _equation(process: Process) -> str:
    """dμ/dt = F μ and dΣ/dt = F Σ + Σ Fᵀ + G Gᵀ, by differences; for a discrete process between its times."""
    step = 1e-5
    if process.table is None:
        t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    else:
        t = (torch.linspace(0, process.table - 1, 9, dtype=torch.float64).floor() + 0.5) / process.table
        step /= process.table
    F, G, (mean, cov) = process.drift(t), process.diffusion(t), process.moments(t)
    later, earlier = process.moments(t + step), process.moments(t - step)
    slope_of_mean, slope_of_cov = ((b - a) / (2 * step) for a, b in zip(earlier, later, strict=True))
    scale = 1 + slope_of_mean.abs().max() + slope_of_cov.abs().max()
    F_cov = F @ cov
    errors = (
        slope_of_mean - (F @ mean.unsqueeze(-1)).squeeze(-1),
        slope_of_cov - F_cov - F_cov.mT - G @ G.mT,
    )
    error = max(float((entry / scale).abs().max()) for entry in errors)
    assert error < 1e-4, f"the equation's moments are {error:.2g} off, relative to their slopes"
    return f"to {error:.1g}"
