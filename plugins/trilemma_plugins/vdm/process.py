"""The variance-preserving process of a schedule γ(t), fixed or learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma_plugins.vdm.gradient_scaling import GradientScaling
from trilemma_plugins.vdm.interior import Cosine, Interior, Linear, Monotone

MOST_UNITS = 1_000_000
Schedule = Literal["linear", "cosine", "learned"]


class VDM(Process, nn.Module):
    """z_t = α x₀ + σ ε,   α² = sigmoid(−γ(t)),   σ² = sigmoid(γ(t)),   γ(t) = γ₀ + (γ₁ − γ₀) η(t),

    with γ = −log SNR and an interior η that rises from 0 to 1. A denoiser on this process holds it as a part of
    itself, so that its weights are trained, averaged and saved with the network's.

    `moments`, and all that samplers derive from it, carries no gradient: an objective other than the bound would move
    the noise to where its own loss is small. `gamma` and `slope` carry a gradient.

    Args:
        schedule: "linear" or "cosine" in γ, or "learned", the monotonic network.
        gamma_min, gamma_max: γ₀ and γ₁, or their initial values.
        endpoints: whether γ₀ and γ₁ are learned; by default where the schedule is.
        width: hidden units of the monotonic network.

    Raises:
        UsageError: for an unknown schedule, ends that do not rise, or a width below 1.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
    """

    def __init__(
        self,
        schedule: Schedule = "linear",
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        endpoints: bool | None = None,
        width: int = 1024,
    ) -> None:
        super().__init__()
        if not gamma_min < gamma_max:
            raise UsageError(
                f"vdm: gamma_min={gamma_min!r}, gamma_max={gamma_max!r}; expected gamma_min < gamma_max"
            )
        checked_integer(width, "vdm: width", 1, MOST_UNITS, what="is no number of hidden units")
        self.schedule, self.endpoints, self.width = schedule, endpoints, width
        self.gamma_min, self.gamma_max = float(gamma_min), float(gamma_max)
        self.interior = _interior(schedule, self.gamma_min, self.gamma_max, width)
        ends = torch.tensor([gamma_min, gamma_max], dtype=torch.float64)
        if schedule == "learned" if endpoints is None else endpoints:
            self.ends: Tensor = nn.Parameter(ends)
        else:
            self.register_buffer("ends", ends, persistent=False)
        self._interior_scaling: GradientScaling | None = None
        self._scaling: GradientScaling | None = None

    def gamma(self, t: Tensor) -> Tensor:
        """Returns γ(t), float64, shape of t and on its device, with its gradient to the schedule."""
        low, high = self._ends(t)
        eta = _through(self._interior_scaling, self.interior(t.double()))
        return _through(self._scaling, low + (high - low) * eta)

    def slope(self, t: Tensor) -> Tensor:
        """Returns γ'(t), float64, shape of t and on its device, with its gradient to the schedule."""
        low, high = self._ends(t)
        slope = _through(self._interior_scaling, self.interior.slope(t.double()))
        return _through(self._scaling, (high - low) * slope)

    @contextmanager
    def scaled_gradients(
        self, interior: GradientScaling | None, schedule: GradientScaling | None = None
    ) -> Iterator[None]:
        """Scales the gradients of `gamma` and `slope` at times [B].

        Args:
            interior: of the gradient to the interior; None leaves it as it is.
            schedule: of the gradient to ends and interior; None likewise.
        """
        self._interior_scaling, self._scaling = interior, schedule
        try:
            yield
        finally:
            self._interior_scaling = self._scaling = None

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        gamma = self._still(self.gamma, t)
        return torch.sigmoid(-gamma).sqrt()[..., None], torch.sigmoid(gamma)[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        return -self._still(self.gamma, t)

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns Ψ² = sigmoid(−γ_t)/sigmoid(−γ_s) and Q = −σ_t² expm1(γ_s − γ_t), where nothing cancels."""
        gamma_s, gamma_t = self._still(self.gamma, s), self._still(self.gamma, t)
        psi = (torch.sigmoid(-gamma_t) / torch.sigmoid(-gamma_s)).sqrt()
        Q = -torch.sigmoid(gamma_t) * (gamma_s - gamma_t).expm1()
        return psi[..., None, None], Q[..., None, None]

    def drift(self, t: Tensor) -> Tensor:
        """Returns F = d log α/dt = −½ σ² γ'."""
        rate = torch.sigmoid(self._still(self.gamma, t)) * self._still(self.slope, t)
        return -rate[..., None, None] / 2

    def diffusion(self, t: Tensor) -> Tensor:
        """Returns G² = σ² γ'."""
        rate = torch.sigmoid(self._still(self.gamma, t)) * self._still(self.slope, t)
        return rate.sqrt()[..., None, None]

    def _ends(self, t: Tensor) -> Tensor:
        return self.ends.to(t.device, torch.float64)

    @staticmethod
    @torch.no_grad()
    def _still(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
        return function(t)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VDM:
        """Moves between devices with the network, but keeps its dtype: a γ in bfloat16 has two digits."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)
        return self


def _through(scaling: GradientScaling | None, value: Tensor) -> Tensor:
    return value if scaling is None else scaling(value)


def _interior(schedule: str, gamma_min: float, gamma_max: float, width: int) -> Interior:
    makers: dict[str, Callable[[], Any]] = {
        "linear": Linear,
        "cosine": lambda: Cosine(gamma_min, gamma_max),
        "learned": lambda: Monotone(gamma_min, gamma_max, width),
    }
    if schedule not in makers:
        raise UsageError(f"vdm: unknown schedule={schedule!r}; expected one of {', '.join(makers)}")
    made: Interior = makers[schedule]()
    return made
