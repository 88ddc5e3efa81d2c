"""The path of the probability flow: its variable of integration, the state's coordinates along it, and their slope."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.numerics.runge_kutta import a_number_a_sample


class Path(ABC):
    """A path from one time to another, down to the data or up from it.

    Attributes:
        first, last: the variable u at the two.
    """

    first: float
    last: float

    def __init__(self, process: Process, begin: float, stop: float) -> None:
        self.process, self.begin, self.stop = process, begin, stop

    @abstractmethod
    def coordinates(self, u: Tensor, z: Tensor) -> Tensor:
        """Returns the coordinates y of states z [B, ...] at u [B], float64."""

    @abstractmethod
    def state(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns times [B], float64, and states."""

    @abstractmethod
    def slope(self, predict: Prediction, u: Tensor, y: Tensor) -> Tensor:
        """Returns dy/du."""

    def times(self, u: Tensor) -> Tensor:
        """Returns the times [B] of u; the ends are exact, which an inverse is not."""
        u = u.clamp(min(self.first, self.last), max(self.first, self.last))
        t = self._time(u).clamp(min(self.begin, self.stop), max(self.begin, self.stop))
        t = torch.where(u == self.first, self.begin, t)
        return torch.where(u == self.last, self.stop, t)

    @abstractmethod
    def _time(self, u: Tensor) -> Tensor: ...


class Angle(Path):
    """One component: y = z/r in the angle φ of α = r cos φ, σ = r sin φ."""

    def __init__(self, process: Process, begin: float, stop: float) -> None:
        super().__init__(process, begin, stop)
        alpha, sigma = process.alpha_sigma(torch.tensor([begin, stop], dtype=torch.float64))
        self.first, self.last = (float(angle) for angle in torch.atan2(sigma, alpha))

    def coordinates(self, u: Tensor, z: Tensor) -> Tensor:
        return z / self._radius(self.times(u), z)

    def state(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        t = self.times(u)
        return t, y * self._radius(t, y)

    def slope(self, predict: Prediction, u: Tensor, y: Tensor) -> Tensor:
        t = self.times(u)
        radius = self._radius(t, y)
        return predict(y * radius, t, "v") / radius

    def _time(self, u: Tensor) -> Tensor:
        return self.process.time_of_log_snr(-2 * u.tan().log())

    def _radius(self, t: Tensor, like: Tensor) -> Tensor:
        return a_number_a_sample(torch.hypot(*self.process.alpha_sigma(t)), like)


class Root(Path):
    """Several components: y = R⁻¹ z in u = √t, R Rᵀ = μ μᵀ + Σ, the covariance of z for data of variance 1.

    With ∇ log p = −ε̂/σ by the last component, H = R⁻¹ F R, N = R⁻¹ G Gᵀ R⁻ᵀ and ⌊ ⌋ the lower triangle with half of
    the diagonal,

        dy/du = 2u [(H − ⌊H + Hᵀ + N⌋) y + R⁻¹ G Gᵀ e_K ε̂/(2σ)],

    as R⁻¹ dR/dt is that half triangle. For K = 1 it is z/r again.
    """

    # Of t, √t, ∛t and log t, with z, R⁻¹z and L⁻¹z (L Lᵀ = Σ), this needs about the fewest evaluations
    # on mixtures, one Gaussian and a point together: ε̂/σ grows as 1/√t, which √t takes away, and L⁻¹z as 1/t, which
    # R⁻¹z does not. A tolerance means the same at every t.

    def __init__(self, process: Process, begin: float, stop: float) -> None:
        super().__init__(process, begin, stop)
        self.first, self.last = begin**0.5, stop**0.5

    def coordinates(self, u: Tensor, z: Tensor) -> Tensor:
        return _applied(torch.linalg.inv(_factor(*self.process.moments(self.times(u)))), z)

    def state(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        t = self.times(u)
        return t, _applied(_factor(*self.process.moments(t)), y)

    def slope(self, predict: Prediction, u: Tensor, y: Tensor) -> Tensor:
        t = self.times(u)
        mean, cov = self.process.moments(t)
        R, G = _factor(mean, cov), self.process.diffusion(t)
        noise = torch.linalg.solve(R, G)
        H = torch.linalg.solve(R, self.process.drift(t) @ R)
        change = H + H.mT + noise @ noise.mT
        A = H - change.tril() + change.diagonal(dim1=-2, dim2=-1).diag_embed() / 2
        sigma = torch.linalg.cholesky(cov)[:, -1:, -1:]
        k = noise @ G[:, -1:].mT / (2 * sigma)
        twice = 2 * t.sqrt()[:, None, None]
        eps = predict(_applied(R, y), t, "eps")
        return _applied(twice * A, y) + _applied(twice * k, eps)

    def _time(self, u: Tensor) -> Tensor:
        return u.square()


def path_between(process: Process, begin: float, stop: float) -> Path:
    return (Angle if process.components == 1 else Root)(process, begin, stop)


def landed(predict: Prediction, z: Tensor, t: float) -> Tensor:
    """Returns E[z_0 | z_t] of states z at time t."""
    process = predict.denoiser.process
    x0 = predict(z, t, "x0")
    if process.components == 1:
        return x0
    A, B = (
        entry.unsqueeze(0) for entry in process.step_onto_data(torch.tensor(t, dtype=torch.float64), "x0")
    )
    return _applied(A, z) + _applied(B.unsqueeze(-1), x0)


def _factor(mean: Tensor, cov: Tensor) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(mean.unsqueeze(-1) * mean.unsqueeze(-2) + cov)
    return factor


def _applied(matrix: Tensor, state: Tensor) -> Tensor:
    """A matrix a sample [B, J, K] on the components of states [B, K·C, ...]."""
    parts = state.reshape(len(state), matrix.shape[-1], -1)
    moved = matrix.to(state.device, state.dtype) @ parts
    return moved.reshape(len(state), -1, *state.shape[2:])
