"""An energy of images: a residual network whose answer is its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser, gradient_of, time_dtype
from trilemma.interfaces.process import Process

SLOPE = 0.2
FREQUENCIES = 32
# Gain of a layer, so that features keep their size.
GAIN = math.sqrt(2 / (1 + SLOPE**2))


class EnergyResNet(Denoiser):
    """ε̂ = ∂F/∂z of an energy F = −σ_t log p_t(z) + c(t) of images:

        F(z, t, y) = ½ b(e) ‖z‖² − Σ_c [Σ_hw relu(h_c)] w_c(e)

    h are the features of residual blocks with LeakyReLU and no normalisation, every convolution divided by its spectral
    norm; the embedding e of time and class is added in each block and weighs the sums. The first term, b > 0, makes
    e^−F a density, which sums of rectified features alone need not do, and keeps long chains of steps bounded.

    Args:
        process: the noising process, of one component.
        parameterization: of the gradient: eps, as above, or another.
        shape: (C, H, W) of the data.
        channels: of the blocks, from the finest resolution on; each is half as fine as the one before.
        blocks: residual blocks of each resolution.
        patch: how much coarser the first resolution is than the image.
        classes: number of classes, 0 for an unconditional network; label `classes` is the null class.

    Raises:
        UsageError: for sizes out of range.

    References:
        Gao et al., Learning Energy-Based Models by Diffusion Recovery Likelihood, arXiv:2012.08125; Miyato et al.,
        Spectral Normalization for Generative Adversarial Networks, arXiv:1802.05957.
    """

    components = (1,)
    gradient = True

    def __init__(
        self,
        process: Process,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 28, 28),
        *,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 1,
        patch: int = 2,
        classes: int = 0,
    ) -> None:
        classes = checked_integer(classes, "energy-resnet: classes", 0)
        conditions = [ClassCondition("class", size=classes, null=classes)] if classes else []
        super().__init__(process, parameterization, shape, conditions)
        checked_integer(blocks, "energy-resnet: blocks", 1, what="is no number of blocks")
        checked_integer(patch, "energy-resnet: patch", 1, what="is no size of a patch")
        if not channels or min(channels) < 1:
            raise UsageError(f"energy-resnet: channels={channels!r} is no list of widths; give [32, 64]")
        first, embedding = channels[0], 2 * channels[-1]
        self.time_embedding = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.class_embedding = nn.Embedding(classes + 1, embedding) if classes else None
        # Patches overlap by half, so that their borders are not seen.
        self.inlet = _normed(nn.Conv2d(shape[0], first, 2 * patch, patch, patch // 2))
        made: list[nn.Module] = []
        current = first
        for number, width in enumerate(channels):
            for k in range(blocks):
                made.append(_Block(current, width, embedding, halve=number > 0 and k == 0))
                current = width
        self.blocks = nn.ModuleList(made)
        self.weigh = nn.Linear(embedding, current)
        self.confine = nn.Linear(embedding, 1)

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns F [B] of states z [B, C, H, W] at times t [B] and labels `class` [B]."""
        exponent = torch.linspace(0, 3, FREQUENCIES, device=t.device, dtype=torch.float32)
        angles = t[:, None].to(time_dtype(t.dtype)) * 10**exponent
        embedding = self.time_embedding(torch.cat([angles.cos(), angles.sin()], 1).to(z.dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(cond["class"])
        embedding = F.silu(embedding)
        h = self.inlet(z)
        for block in self.blocks:
            h = block(h, embedding)
        sums = F.relu(h).sum((2, 3))
        confined = F.softplus(self.confine(embedding)).squeeze(1) * z.square().flatten(1).sum(1) / 2
        return confined - (sums * self.weigh(embedding)).sum(1)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the gradient [B, C, H, W] at state z [B, C, H, W], times t [B] and labels `class` [B]."""
        return gradient_of(lambda state: self.energy(state, t, **cond), z)


class _Block(nn.Module):
    """h ↦ s(h) + W₂ φ(W₁ φ(h) + V e), φ = LeakyReLU; features are halved first where they become coarser."""

    def __init__(self, incoming: int, outgoing: int, embedding: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = _normed(nn.Conv2d(incoming, outgoing, 3, padding=1))
        self.second = _normed(nn.Conv2d(outgoing, outgoing, 3, padding=1))
        self.inject = nn.Linear(embedding, outgoing)
        self.shortcut = (
            nn.Identity() if incoming == outgoing else nn.Conv2d(incoming, outgoing, 1, bias=False)
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        h = F.avg_pool2d(h, 2, ceil_mode=True) if self.halve else h
        inner = self.first(F.leaky_relu(h, SLOPE)) * GAIN
        inner = F.leaky_relu(inner + self.inject(embedding)[:, :, None, None], SLOPE)
        return self.shortcut(h) + self.second(inner) * GAIN


def _normed(layer: nn.Conv2d) -> nn.Conv2d:
    register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


class SpectralNorm(nn.Module):
    """W/σ(W) of the weights W of a convolution, as a matrix of its output channels (1802.05957).

    σ = ‖Wᵀ u‖/‖u‖ with u from one step of power iteration each time that the weights are read in training. The length
    of u does not matter, so that u may be averaged and rounded as weights are.
    """

    left: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("left", torch.randn(len(weight)))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.left.copy_(F.normalize(matrix @ F.normalize(matrix.mT @ self.left, dim=0), dim=0))
        # A copy, as the buffer changes before the gradient is taken.
        left = self.left.clone()
        return weight * (left.norm() / (matrix.mT @ left).norm())
