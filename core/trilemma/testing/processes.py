"""What every noising process must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trilemma.process import Process


def process_checks(process: Process) -> Iterator[tuple[str, Callable[[], str]]]:
    """Pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    yield "moments are exact and well-formed", lambda: _moments(process)
    yield "transitions carry the moments", lambda: _transitions(process)
    if process.components == 1:
        yield "signal falls into noise", lambda: _falls(process)
        yield "time_of_log_snr inverts log_snr", lambda: _inverse(process)
        yield "drift and diffusion carry the moments", lambda: _equation(process)


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


def _falls(process: Process) -> str:
    log_snr = process.log_snr(_times(process))
    assert bool((log_snr.diff() < 0).all()), "log_snr does not fall strictly in time"
    return f"log SNR from {float(log_snr[0]):.3g} to {float(log_snr[-1]):.3g}"


def _inverse(process: Process) -> str:
    t = _times(process)
    t = t[process.log_snr(t).isfinite()]  # where nothing is left of the data λ is −∞, and no number to invert
    error = float((process.time_of_log_snr(process.log_snr(t)) - t).abs().max())
    assert error < 1e-6, f"time_of_log_snr(log_snr(t)) is {error:.2g} away from t"
    return f"to {error:.1g}"


def _equation(process: Process) -> str:
    """dα/dt = F α and dσ²/dt = 2 F σ² + G², by differences; between the points of a table for a discrete process."""
    step = 1e-5
    if process.table is None:
        t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    else:
        t = (torch.linspace(0, process.table - 1, 9, dtype=torch.float64).floor() + 0.5) / process.table
        step /= process.table
    F, G = process.drift(t)[..., 0, 0], process.diffusion(t)[..., 0, 0]
    alpha, variance = process.alpha(t), process.sigma(t).square()
    slope_of_alpha = (process.alpha(t + step) - process.alpha(t - step)) / (2 * step)
    slope_of_variance = (process.sigma(t + step).square() - process.sigma(t - step).square()) / (2 * step)
    scale = 1 + slope_of_alpha.abs().max() + slope_of_variance.abs().max()
    errors = (slope_of_alpha - F * alpha, slope_of_variance - 2 * F * variance - G.square())
    error = max(float((entry / scale).abs().max()) for entry in errors)
    assert error < 1e-4, f"the equation's moments are {error:.2g} off, relative to their slopes"
    return f"to {error:.1g}"
