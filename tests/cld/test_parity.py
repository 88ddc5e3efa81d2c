"""Phase space against other people's mathematics: matrix exponentials, torchdiffeq's flow and torchsde's paths.

A peer that is not installed is a skip; with TRILEMMA_PEERS=1, as in CI, it is a failure.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import os
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import trilemma
from trilemma.engine.noise import InjectedNoise
from trilemma.testing.execution import run_sample
from trilemma.testing.interpreter import interpret
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.cld.gddim import GDDIM
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.solvers.euler_maruyama import EulerMaruyama
from trilemma_plugins.solvers.rk import RK

LINEAR = CLD(schedule="linear", beta_min=0.1, beta_max=8.0)
DATA = {
    "gaussian": GaussianMixtureDenoiser(LINEAR, (0.4,), 0.25),
    "mixture": GaussianMixtureDenoiser(LINEAR),
}
STARTS = torch.tensor([[0.3, 0.0], [1.3, 0.1], [-0.8, 0.6], [0.2, -0.7]], dtype=torch.float64)


def peer(name: str) -> ModuleType:
    if importlib.util.find_spec(name) is None:
        if os.environ.get("TRILEMMA_PEERS") == "1":
            pytest.fail(f"{name} is not installed; `make test` installs the peers")
        pytest.skip(f"{name} is not installed")
    return importlib.import_module(name)


@pytest.fixture
def torchdiffeq() -> ModuleType:
    return peer("torchdiffeq")


@pytest.fixture
def torchsde() -> ModuleType:
    return peer("torchsde")


# --- moments by Van Loan's block matrix


def van_loan(process, B):
    """exp[[F, D], [0, −Fᵀ]] B = [[E, X], [0, E⁻ᵀ]]: the flow E and the gathered noise X Eᵀ, by a β of one."""
    m, friction = process.inverse_mass, process.damping
    F, D = np.array([[0, m], [-1, -friction * m]]), np.diag([0, 2 * friction])
    block = expm(B * np.block([[F, D], [np.zeros((2, 2)), -F.T]]))
    E = block[:2, :2]
    return E, block[:2, 2:] @ E.T


@pytest.mark.parametrize("damping", [0.2, 0.7, 0.999, 1.0, 1.001, 1.8])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_moments_are_those_of_van_loans_exponential(damping, schedule):
    """Damping in units of the critical; over stretches short enough for e^(−FᵀB) not to swamp the rest."""
    random = np.random.default_rng(round(1000 * damping))
    for _ in range(10):
        m, gamma, low, high = random.uniform((0.5, 0.01, 0.1, 1.0), (6, 1, 0.5, 5))
        friction = None if damping == 1 else 2 * damping / math.sqrt(m)
        process = CLD(m, friction, schedule, beta=high, beta_min=low, beta_max=high, gamma=gamma)
        fastest = math.sqrt(m) * (damping + math.sqrt(abs(damping**2 - 1)))
        reach = min(1.0, 3 / (fastest * high))
        s, t = np.sort(random.uniform(0, reach, 2))
        for first, last in ((0.0, t), (s, t)):
            B = (last - first) * (high if schedule == "constant" else low + (high - low) * (first + last) / 2)
            E, Q = van_loan(process, B)
            times = torch.tensor([first, last], dtype=torch.float64)
            found = process.transition(*times)
            np.testing.assert_allclose(found[0].numpy(), E, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found[1].numpy(), Q, rtol=0, atol=1e-12)
        E, Q = van_loan(process, t * (high if schedule == "constant" else low + (high - low) * t / 2))
        mean, cov = process.moments(torch.tensor(t, dtype=torch.float64))
        np.testing.assert_allclose(mean.numpy(), E[:, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(cov.numpy(), E @ np.diag([0, gamma / m]) @ E.T + Q, rtol=0, atol=1e-12)


# --- the probability flow


def drift_of_the_flow(model, t, z, noise=0.5):
    """F z − noise·G Gᵀ ∇ log p, the score of all components; with noise=1 of the reverse-time equation."""
    process = model.process
    G = process.diffusion(t)
    score = model.score(z.view(-1, 2, 1, 1), t.expand(len(z))).view(-1, 2)
    return z @ process.drift(t).mT - noise * score @ (G @ G.mT)


def run(tableau, model, z):
    """The rows of a plan without noise, read literally."""

    def predict(r, row, z):
        t = torch.full((len(z),), row.t, dtype=torch.float64)
        return model.predict_stacked(z.view(-1, 2, 1, 1), t, tableau.parameterization).view(-1, 1)

    return interpret(
        tableau,
        predict,
        z,
        on_states=lambda A, z: z @ torch.tensor(A, dtype=torch.float64).mT,
        on_predictions=lambda B, f: f * torch.tensor(B, dtype=torch.float64),
    )[-1]


@pytest.mark.parametrize("data", DATA)
def test_the_flow_is_that_of_torchdiffeq(data, torchdiffeq):
    model, ends = DATA[data], torch.tensor([1.0, 0.1], dtype=torch.float64)
    exact = torchdiffeq.odeint(
        lambda t, z: drift_of_the_flow(model, t, z), STARTS, ends, method="dopri5", rtol=1e-9, atol=1e-11
    )[-1]
    adaptive = run_sample(RK(tolerance=1e-7), model, ends, STARTS.view(-1, 2, 1, 1), torch.zeros_like)
    torch.testing.assert_close(adaptive.view(-1, 2), exact, rtol=0, atol=1e-5)
    errors = []
    for steps in (60, 120):
        times = torch.linspace(1.0, 0.1**0.5, steps + 1, dtype=torch.float64).square()
        times[-1] = 0.1
        errors.append((run(GDDIM(3).plan(LINEAR, times), model, STARTS) - exact).abs().max().item())
    assert errors[1] < 1e-3
    assert math.log2(errors[0] / errors[1]) > 2.5


# --- the stochastic equations


class Forward:
    """dz = F z dt + G dW as torchsde takes it: noise of its own for every component, of the position none."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, z):
        return z @ LINEAR.drift(t).mT

    def g(self, t, z):
        return LINEAR.diffusion(t).diagonal().expand_as(z)


class Backward:
    """The reverse-time equation in τ = 1 − t, which rises."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, tau, z):
        return -drift_of_the_flow(DATA["mixture"], 1 - tau, z, noise=1.0)

    def g(self, tau, z):
        return LINEAR.diffusion(1 - tau).diagonal().expand_as(z)


def test_the_law_is_that_of_torchsdes_paths(torchsde):
    """Mean and covariance of 4000 of their paths, whose steps' own bias is far below, to five standard errors."""
    count, steps = 4000, 64
    start = torch.tensor([0.7, 0.0], dtype=torch.float64).expand(count, 2).clone()
    noise = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    start[:, 1] = math.sqrt(LINEAR.gamma * LINEAR.mass) * noise
    ends = torch.tensor([0.0, 0.5], dtype=torch.float64)
    bm = torchsde.BrownianInterval(
        0.0, 0.5, (count, 2), dtype=torch.float64, entropy=5, levy_area_approximation="space-time"
    )
    found = torchsde.sdeint(Forward(), start, ends, bm=bm, method="srk", dt=0.5 / steps)[-1]
    mean, cov = LINEAR.moments(ends[-1])
    off = (found.mean(0) - 0.7 * mean) / (cov.diagonal() / count).sqrt()
    assert off.abs().max() < 5
    variances = cov.diagonal()
    error = ((variances[:, None] * variances + cov.square()) / count).sqrt()
    assert ((found.mT.cov() - cov) / error).abs().max() < 5


def test_a_path_is_torchsdes_on_the_same_brownian_motion(torchsde):
    """32 steps of Euler–Maruyama; powers of two, so that 1 − τ is exact and both see the same increments."""
    steps = 32
    tau = torch.arange(steps, dtype=torch.float64) / steps
    bm = torchsde.BrownianInterval(0.0, 1.0, (len(STARTS), 2), dtype=torch.float64, entropy=6)
    theirs = torchsde.sdeint(Backward(), STARTS, tau, bm=bm, method="euler", dt=1 / steps)
    increments = torch.stack([bm(a, b) for a, b in itertools.pairwise(tau)])
    xi = torch.cat([increments * steps**0.5, torch.zeros_like(increments[:1])])
    ours = trilemma.sample(
        DATA["mixture"],
        sampler=EulerMaruyama(grid=tuple((1 - tau).tolist())),
        steps=steps,
        latent=STARTS.view(-1, 2, 1, 1),
        noise=InjectedNoise(steps=list(xi.view(steps, -1, 2, 1, 1))),
        trajectory=True,
        dtype=torch.float64,
    )
    found = ours.trajectory[:-1].view(steps, -1, 2)
    assert float((found - theirs).abs().max()) < 1e-9
