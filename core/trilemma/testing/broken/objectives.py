"""Training objectives with one fault each, and one without."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.numerics.conversion import functional


class RightLoss(Objective):
    """E_{t,ε} ‖f − f̂(z_t, t)‖², the mean over batch and pixels, t uniform in (0, 1]."""

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        t = 1 - torch.rand(len(x0), generator=generator, dtype=torch.float64)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        return self.reduced(self.residual(network, denoiser, x0, t, noise, cond))

    def residual(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        cond: Mapping[str, Tensor],
    ) -> Tensor:
        answer: Tensor = network(denoiser.process.perturb(x0, t, noise), t.float(), **cond)
        return answer.to(x0.dtype) - self.target(denoiser, x0, t, noise)

    def target(self, denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        scales = (scale.view(-1, 1, 1, 1) for scale in (denoiser.process.alpha(t), denoiser.process.sigma(t)))
        a, b = functional(denoiser.parameterization, *scales)
        return a.to(x0) * x0 + b.to(x0) * noise

    def reduced(self, residual: Tensor) -> Tensor:
        return residual.square().mean()


class SumOfTheBatch(RightLoss):
    """Adds the examples up."""

    def reduced(self, residual: Tensor) -> Tensor:
        return residual.square().sum()


class LossOfEach(RightLoss):
    """Keeps a loss an example."""

    def reduced(self, residual: Tensor) -> Tensor:
        return residual.square().flatten(1).mean(1)


class Detached(RightLoss):
    """Cuts the network off."""

    def reduced(self, residual: Tensor) -> Tensor:
        return residual.detach().square().mean()


class PastTheNetwork(RightLoss):
    """Calls the denoiser, whatever stands before it."""

    def residual(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        cond: Mapping[str, Tensor],
    ) -> Tensor:
        return super().residual(denoiser, denoiser, x0, t, noise, cond)


class Unconditional(RightLoss):
    """Forgets the conditions."""

    def residual(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        cond: Mapping[str, Tensor],
    ) -> Tensor:
        return super().residual(network, denoiser, x0, t, noise, {})


class OtherTarget(RightLoss):
    """Trains another quantity than the network puts out."""

    def target(self, denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return x0


class ScalesItsData(RightLoss):
    """Writes to the data it is given."""

    def residual(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        cond: Mapping[str, Tensor],
    ) -> Tensor:
        return super().residual(network, denoiser, x0.mul_(0.9), t, noise, cond)


class OnlySingle(RightLoss):
    """Multiplies with a matrix in float32."""

    def reduced(self, residual: Tensor) -> Tensor:
        flat = residual.flatten(1)
        return (flat @ torch.eye(flat.shape[1])).square().mean()


class GlobalNoise(RightLoss):
    """Draws from torch's global generator beside its own."""

    def target(self, denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().target(denoiser, x0, t, noise) + 1e-3 * torch.randn(x0.shape).to(x0)


class GeneratorOfItsOwn(RightLoss):
    """Draws from a generator that it makes anew."""

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return super().loss(network, denoiser, x0, cond, torch.Generator().manual_seed(0))


class WeighsByItsGradient(RightLoss):
    """Asks for a derivative, of which there is none in a validation."""

    def reduced(self, residual: Tensor) -> Tensor:
        return residual.square().mean() * (2 if residual.requires_grad else 1)
