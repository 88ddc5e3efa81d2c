"""The simple denoising losses and their weightings by signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert, functional
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws

Weighting = Literal["uniform", "truncated-snr", "min-snr", "edm"]
Times = Literal["uniform", "log-normal", "logit-normal"]


@dataclass(frozen=True)
class Simple(Objective):
    """E_{t,ε} w(t) ‖x₀ − x̂₀(z_t, t)‖², written as a weighted residual of the network's own parameterization.

    uniform: w makes it ‖target − prediction‖² (ε: 2006.11239; v: SNR+1, 2202.00512; x0: w = 1);
    truncated-snr: w = max(SNR, 1) (2202.00512); min-snr: w = min(SNR, γ) (2303.09556);
    edm: w = SNR + 1/s², s = `data` (2206.00364).

    Args:
        target: the quantity whose plain residual "uniform" measures; the network's own by default.
        weighting: "uniform", "truncated-snr", "min-snr" or "edm".
        gamma: γ of min-snr.
        drop: probability of replacing the conditions of an example by the null one (2207.12598).
        stratified: draw t = (u + i/B) mod 1, one u a batch, instead of B independent uniforms (2107.00630).
        times: how training times are spread: "uniform" in t; "log-normal": log(σ/α) normal, of `mean` and `deviation`
            (2206.00364 has −1.2 and 1.2); "logit-normal": log(t/(1 − t)) normal (2403.03206 has 0 and 1).
        mean, deviation: of that normal.
        data: standard deviation s of the data, for the weighting "edm".

    Raises:
        UsageError: for an unknown weighting, a target that is no parameterization, a drop outside [0, 1], or a
            dropped condition without a null class.
    """

    target: str | None = None
    weighting: Weighting = "uniform"
    gamma: float = 5.0
    drop: float | dict[str, float] = 0.0
    stratified: bool = True
    times: Times = "uniform"
    mean: float = 0.0
    deviation: float = 1.0
    data: float = 0.5

    def __post_init__(self) -> None:
        if self.weighting not in ("uniform", "truncated-snr", "min-snr", "edm"):
            raise UsageError(
                f"simple: unknown weighting={self.weighting!r}; expected uniform, truncated-snr, min-snr or edm"
            )
        check_drop("simple", self.drop)
        if self.times not in ("uniform", "log-normal", "logit-normal"):
            raise UsageError(
                f"simple: unknown times={self.times!r}; expected uniform, log-normal or logit-normal"
            )
        if not (self.deviation > 0 and self.data > 0):
            raise UsageError(
                f"simple: deviation={self.deviation!r} and data={self.data!r} must be positive; give such numbers"
            )

    def draw_times(self, process: Process, batch: int, generator: torch.Generator) -> Tensor:
        """Draws training times [B] in (0, 1], float64, on the table of a discrete process."""
        u = uniform_draws(batch, generator, self.stratified)
        if self.times != "uniform":
            t = self._normal_times(process, u)
            return t if process.table is None else (t * process.table).round().clamp_min(1) / process.table
        if process.table is None:
            return 1 - u
        return (torch.floor(u * process.table) + 1) / process.table

    def _normal_times(self, process: Process, u: Tensor) -> Tensor:
        normal = self.mean + self.deviation * torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
        if self.times == "logit-normal":
            return torch.sigmoid(normal)
        return process.time_of_log_snr(-2 * normal).clamp_min(1e-9)

    def weights(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """Returns the weight [B] of the squared residual in the denoiser's parameterization, float64."""
        if self.weighting == "uniform" and self.target in (None, denoiser.parameterization):
            return torch.ones_like(t, dtype=torch.float64)
        # Where nothing is left of the data the ratio of two slopes may be 0/0; its limit is taken.
        alpha, sigma = denoiser.process.alpha(t).clamp_min(1e-6), denoiser.process.sigma(t)
        residual = _squared_slope(denoiser.parameterization, alpha, sigma)
        snr = (alpha / sigma).square()
        match self.weighting:
            case "uniform":
                weight = _squared_slope(self.target or denoiser.parameterization, alpha, sigma)
            case "truncated-snr":
                weight = snr.clamp_min(1)
            case "min-snr":
                weight = snr.clamp_max(self.gamma)
            case "edm":
                weight = snr + self.data**-2
        return weight / residual

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Returns the mean over batch and pixels of the weighted squared residual."""
        batch = len(x0)
        t = self.draw_times(denoiser.process, batch, generator)
        noise = standard_normals(x0, generator)
        cond = drop_conditions(denoiser, cond, self.drop, generator)
        z = denoiser.process.perturb(x0, t, noise)
        prediction = network(z, t.to(x0.device, time_dtype(x0.dtype)), **cond)
        a, b = functional(denoiser.parameterization, *_columns(denoiser.process, t, x0))
        target = a.to(x0) * x0 + b.to(x0) * noise
        weight = self.weights(denoiser, t).to(x0).view(-1, *[1] * (x0.dim() - 1))
        return (weight * (prediction.to(x0.dtype) - target).square()).mean()


def _squared_slope(parameterization: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """‖residual of the parameterization‖² / ‖residual of x₀‖² at a fixed z: SNR for ε, SNR + 1 for v (VP)."""
    return convert("x0", parameterization, alpha, sigma)[1].square()


def _columns(process: Process, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (-1, *[1] * (like.dim() - 1))
    return process.alpha(t).view(shape), process.sigma(t).view(shape)
