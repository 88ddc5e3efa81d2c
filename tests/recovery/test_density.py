"""The density that an energy of points stands for, and its chains, short and long."""

from __future__ import annotations

import torch

import trilemma
from trilemma import Denoiser, gradient_of
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.points.law import ring

LINEAR = DiscreteVP("linear")
END = 0.04
SAMPLER = f"recovery-langevin:grid=[1.0,0.6,0.45,0.33,0.22,0.12],end={END},step=0.04,noise=1"


class Exact(Denoiser):
    """The exact energy of three normals of deviation 0.2 on a ring."""

    gradient = True

    def __init__(self):
        super().__init__(LINEAR, "score", (2, 1, 1))
        self.centres = ring(3, 0.6)

    def energy(self, z, t, **cond):
        alpha, sigma = (level[:, None] for level in self.process.alpha_sigma(t.double()))
        off = z.flatten(1).double()[:, None] - alpha[..., None] * self.centres
        return (-off.square().sum(-1) / (2 * (alpha**2 * 0.04 + sigma**2))).logsumexp(1).to(z.dtype)

    def forward(self, z, t, **cond):
        return gradient_of(lambda state: self.energy(state, t), z)


def shares(points: torch.Tensor) -> torch.Tensor:
    """A histogram of the plane, 6×6 cells, and what lies outside."""
    cells = ((points.flatten(1) + 1.2) / 0.4).floor().clamp(-1, 6).long() + 1
    return torch.bincount(cells[:, 0] * 8 + cells[:, 1], minlength=64).double() / len(points)


def test_the_density_of_an_energy_on_a_grid_is_that_of_its_chains_short_and_long():
    """Histograms of chains of 30 and of 150 steps differ by 0.065, of which 0.044 are those of two seeds; with half the
    steps, which 30 of them do not reach far with, by 0.13.
    """
    model, n = Exact(), 4000
    side = torch.linspace(-2, 2, 161)
    grid = torch.cartesian_prod(side, side)
    found = trilemma.energy(model, grid.view(-1, 2, 1, 1), END).double().log_softmax(0)
    alpha, sigma = (float(c) for c in LINEAR.alpha_sigma(torch.tensor([END], dtype=torch.float64)))
    off = torch.cdist(grid.double(), alpha * ring(3, 0.6)).square() / (2 * (alpha**2 * 0.04 + sigma**2))
    law = (-off).logsumexp(1).log_softmax(0)
    assert float((law.exp() * (law - found)).sum()) < 1e-4

    short, long = (
        trilemma.sample(model, n, sampler=f"{SAMPLER},chain={chain}", steps=6, batch_size=n).samples
        for chain in (30, 150)
    )
    off_by = float((shares(short) - shares(long)).abs().sum()) / 2
    assert off_by < 0.1
