"""The exact denoiser of a Gaussian mixture: curved, class-conditional, and known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import check_components, functional
from trilemma.testing import stacked


class GaussianMixtureDenoiser(Denoiser):
    """Answers for data x₀ ~ Σ_c w_c N(m_c, s_c² I) exactly. With V_c = α² s_c² + σ² and the posterior weights

        r_c ∝ w_c N(z; α m_c, V_c I),   x̂₀ = Σ_c r_c (m_c + α s_c²/V_c (z − α m_c)),   ε̂ = σ Σ_c r_c (z − α m_c)/V_c,

    every parameterization is a·x̂₀ + b·ε̂, so nothing is divided by α. A variance of 0 is a point mass. Given two
    components or more it takes the condition `class`, the component; the null class is the whole mixture.

    Args:
        process: of any number of components. Of several, z = μ ⊗ x₀ + L ε with L Lᵀ the covariance, ε and the score
            are those of the last component (2112.07068), and v and flow are not defined.
        means: m_c, a number or a tensor of shape `shape` each.
        variances: s_c² ≥ 0, one for all or one each.
        weights: w_c > 0, up to a factor; equal by default.
        parameterization: of its output.
        shape: of one sample.

    Raises:
        UsageError: where these do not fit together.
    """

    def __init__(
        self,
        process: Process,
        means: Sequence[float | Tensor] = (-1.0, 0.2, 1.1),
        variances: float | Sequence[float] = (0.04, 0.12, 0.06),
        weights: Sequence[float] | None = None,
        parameterization: str = "x0",
        shape: Sequence[int] = (1, 1, 1),
    ) -> None:
        count = len(means)
        conditions = [ClassCondition("class", count, null=count)] if count > 1 else []
        super().__init__(process, parameterization, shape, conditions)
        check_components(parameterization, process.components)
        spread = [float(variances)] * count if isinstance(variances, int | float) else list(variances)
        mass = [1.0] * count if weights is None else list(weights)
        if not count or len(spread) != count or len(mass) != count or min(spread) < 0 or min(mass) <= 0:
            raise UsageError(
                f"{count} means, variances {spread} and weights {mass} are no mixture; give one of each a "
                "component, variances of at least 0 and positive weights"
            )
        size = self.shape
        self.means = torch.stack([torch.as_tensor(m, dtype=torch.float64).expand(size) for m in means])
        self.variances = torch.tensor(spread, dtype=torch.float64)
        self.weights = torch.tensor(mass, dtype=torch.float64) / sum(mass)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        host = t.to("cpu", torch.float64)
        if self.process.components > 1:
            labels = cond["class"].cpu() if "class" in cond else None
            answer = self.predict_stacked(z.to("cpu", torch.float64), host, self.parameterization, labels)
            return answer.to(z.device, z.dtype)
        alpha, sigma = self.process.alpha(host), self.process.sigma(host)
        labels = cond["class"].cpu() if "class" in cond else None
        answer = self.predict(z.to("cpu", torch.float64), alpha, sigma, self.parameterization, labels)
        return answer.to(z.device, z.dtype)

    def predict(
        self,
        z: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        parameterization: str = "x0",
        labels: Tensor | None = None,
    ) -> Tensor:
        """Returns the exact prediction [B, ...] at states z [B, ...] and levels α, σ ([B] or single), float64.

        Args:
            labels: components [B]; their number, the null class, means the whole mixture, as None does.
        """
        column = (-1,) + (1,) * len(self.shape)
        alpha, sigma = alpha.reshape(column), sigma.reshape(column)
        spread = self.variances.view(-1, 1, *column[1:])
        # Shape [c, B, 1, ...].
        V = alpha.square() * spread + sigma.square()
        centred = z - alpha * self.means.unsqueeze(1)
        r = self._posterior(centred, V, labels)
        if parameterization == "score":
            return -(r * centred / V).sum(0)
        x0 = (r * (self.means.unsqueeze(1) + alpha * spread / V * centred)).sum(0)
        eps = sigma * (r * centred / V).sum(0)
        a, b = functional(parameterization, alpha, sigma)
        return a * x0 + b * eps

    def predict_stacked(
        self, z: Tensor, t: Tensor, parameterization: str = "x0", labels: Tensor | None = None
    ) -> Tensor:
        """Returns the exact prediction at states [B, K·C, ...] of any number of components at times t [B], float64."""
        x0, pull = self._stacked(z, t, labels)
        return stacked.predicted(parameterization, x0, pull, self.process.moments(t)[1])

    def score(self, z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns ∇_z log p(z_t) [B, K·C, ...], by all components, of states z at times t [B], float64."""
        pull = self._stacked(z, t.double(), labels)[1]
        return -pull.reshape(z.shape)

    def _stacked(self, z: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, cov = self.process.moments(t)
        prior = self._log_prior(labels).expand(-1, len(z))
        return stacked.posterior(z, mean, cov, self.means, self.variances, prior)

    def _log_prior(self, labels: Tensor | None) -> Tensor:
        """log w_c [c, 1 or B], −∞ for components that a label excludes."""
        prior = self.weights.log().unsqueeze(1)
        if labels is None:
            return prior
        component = torch.arange(len(self.means)).unsqueeze(1)
        asked = (labels == component) | (labels == len(self.means))
        return prior.masked_fill(~asked, -torch.inf)

    def _posterior(self, centred: Tensor, V: Tensor, labels: Tensor | None) -> Tensor:
        """r_c [c, B, 1, ...]: of the mixture, or one for the component that a label names."""
        r = self._log_posterior(centred, V, labels).exp()
        return r.view(*r.shape, *(1,) * len(self.shape))

    def _log_posterior(self, centred: Tensor, V: Tensor, labels: Tensor | None) -> Tensor:
        size = self.means[0].numel()
        distance = (centred.square() / V).flatten(2).sum(-1)
        prior = self._log_prior(labels)
        return (prior - (distance + size * V.flatten(1).log()) / 2).log_softmax(0)

    def class_log_probabilities(self, z: Tensor, t: Tensor) -> Tensor:
        """Returns log p(c | z, t) [B, classes] of states z [B, ...] at times t ([B] or one): the perfect classifier."""
        column = (-1,) + (1,) * len(self.shape)
        alpha, sigma = (
            self.process.alpha(t.double()).view(column),
            self.process.sigma(t.double()).view(column),
        )
        V = alpha.square() * self.variances.view(-1, 1, *column[1:]) + sigma.square()
        return self._log_posterior(z - alpha * self.means.unsqueeze(1), V, None).mT

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws data x₀ [count, ...] of the whole mixture, float64."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.shape, dtype=torch.float64, generator=generator)
        scale = self.variances.sqrt()[chosen].view(-1, *(1,) * len(self.shape))
        return self.means[chosen] + scale * noise


def point_mass(process: Process, point: float | Tensor = 0.7, **options: object) -> GaussianMixtureDenoiser:
    """Returns the exact denoiser where all data are one point."""
    return GaussianMixtureDenoiser(process, (point,), 0.0, **options)  # type: ignore[arg-type]
