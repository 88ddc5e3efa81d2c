"""The interior of a schedule: how γ goes from its value at t = 0 to its value at t = 1.

An interior is a module with `forward(t)` = η(t), rising from η(0) = 0 to η(1) = 1, and `slope(t)` = η'(t), for
float64 t of any shape on the host. The bound in continuous time does not depend on it; the variance of its
estimate does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Interior(nn.Module):
    """A rising η with η(0) = 0 and η(1) = 1."""

    def forward(self, t: Tensor) -> Tensor:
        """Returns η(t), float64, shape of t."""
        raise NotImplementedError

    def slope(self, t: Tensor) -> Tensor:
        """Returns η'(t), float64, shape of t."""
        raise NotImplementedError


class Linear(Interior):
    """η(t) = t."""

    def forward(self, t: Tensor) -> Tensor:
        return t

    def slope(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


class Cosine(Interior):
    """α_t = cos(a t + b): γ(t) = 2 log tan(a t + b), scaled to run from 0 to 1 (2102.09672, 2202.00512).

    Args:
        gamma_min, gamma_max: γ at both ends, which decide a and b.
    """

    def __init__(self, gamma_min: float, gamma_max: float) -> None:
        super().__init__()
        self.low, self.range = gamma_min, gamma_max - gamma_min
        self.b = math.atan(math.exp(gamma_min / 2))
        self.a = math.atan(math.exp(gamma_max / 2)) - self.b

    def forward(self, t: Tensor) -> Tensor:
        return (2 * (self.a * t + self.b).tan().log() - self.low) / self.range

    def slope(self, t: Tensor) -> Tensor:
        return 4 * self.a / (2 * (self.a * t + self.b)).sin() / self.range


class Monotone(Interior):
    """The monotonic network of variational diffusion models, normalised at both ends:

        γ̃(t) = l₁(t) + l₃ sigmoid(l₂(l₁(t))),   η(t) = (γ̃(t) − γ̃(0))/(γ̃(1) − γ̃(0)),

    where the kernels of l₁, l₂, l₃ are taken by their absolute values, so that γ̃ rises. It starts close to the
    linear one, with the bends of its hidden units spread evenly over the range of γ.

    Args:
        gamma_min, gamma_max: γ at both ends before training; the range that l₁ starts with.
        width: hidden units of l₂.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630, appendix H.
    """

    def __init__(self, gamma_min: float, gamma_max: float, width: int = 1024) -> None:
        super().__init__()
        span = gamma_max - gamma_min
        place = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        # A bend is an eighth of the range wide.
        sharp = 8 / span
        self.kernel1 = nn.Parameter(torch.tensor(span, dtype=torch.float64))
        self.bias1 = nn.Parameter(torch.tensor(gamma_min, dtype=torch.float64))
        self.kernel2 = nn.Parameter(torch.full((width,), sharp, dtype=torch.float64))
        self.bias2 = nn.Parameter(-sharp * (gamma_min + span * place))
        self.kernel3 = nn.Parameter(torch.full((width,), 0.05 * span / width, dtype=torch.float64))

    def forward(self, t: Tensor) -> Tensor:
        low, high = self._ends(t)
        return (self._rising(t)[0] - low) / (high - low)

    def slope(self, t: Tensor) -> Tensor:
        low, high = self._ends(t)
        return self._rising(t)[1] / (high - low)

    def _ends(self, t: Tensor) -> Tensor:
        return self._rising(torch.tensor([0.0, 1.0], dtype=torch.float64, device=t.device))[0]

    def _rising(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """γ̃(t) and its derivative."""
        kernel1, bias1, kernel2, bias2, kernel3 = (
            entry.to(t.device, torch.float64)
            for entry in (self.kernel1.abs(), self.bias1, self.kernel2.abs(), self.bias2, self.kernel3.abs())
        )
        line = kernel1 * t + bias1
        hidden = torch.sigmoid(line.unsqueeze(-1) * kernel2 + bias2)
        value = line + (hidden * kernel3).sum(-1)
        slope = kernel1 * (1 + (hidden * (1 - hidden) * kernel2 * kernel3).sum(-1))
        return value, slope
