"""The steps of phase space by themselves, against their equations and against the samplers."""

from __future__ import annotations

import math

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.cld.step import sscs_step
from trilemma_plugins.processes.exploding import VE
from trilemma_plugins.solvers.euler_maruyama_step import euler_maruyama_step

PROCESS = CLD()
Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCORE = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def linear_part(z: torch.Tensor, stretch: float) -> torch.Tensor:
    """The mean of dx = −4 v dB, dv = (x − 4 v) dB over B = β · stretch: M = ¼, Γ = 1."""
    drift = torch.tensor([[0.0, -4.0], [1.0, -4.0]], dtype=torch.float64)
    psi = torch.linalg.matrix_exp(drift * PROCESS.beta * stretch)
    return torch.einsum("ij,bj...->bi...", psi, z.unflatten(1, (2, 3))).flatten(1, 2)


@pytest.mark.parametrize("following", [None, 0.56, 0.0])
@pytest.mark.parametrize("t", [0.7, 1.0])
def test_a_kick_and_the_linear_part_after_it(t: float, following: float | None) -> None:
    """Where nothing or only the step onto the data follows, it ends at s."""
    x, v = Z.chunk(2, 1)
    h = t - 0.6
    kicked = torch.cat([x, v + h * 2 * PROCESS.beta * (SCORE + 4 * v)], 1)
    end = 0.6 if not following else (0.6 + following) / 2
    stepped = sscs_step(PROCESS, t, 0.6, following)(Z, SCORE, noise=torch.zeros_like(Z))
    torch.testing.assert_close(stepped, linear_part(kicked, (t + 0.6) / 2 - end))


def test_euler_maruyama() -> None:
    noise = torch.randn_like(Z)
    x, v = Z.chunk(2, 1)
    delta = 0.03
    expected_v = v + delta * (x + 4 * v + 2 * SCORE) + math.sqrt(2 * delta) * noise.chunk(2, 1)[1]
    step = euler_maruyama_step(PROCESS, 0.7, 0.7 - delta / PROCESS.beta)
    expected = torch.cat([x - 4 * delta * v, expected_v], 1)
    torch.testing.assert_close(step(Z, SCORE, noise=noise), expected)


@pytest.mark.parametrize("name", ["sscs", "euler-maruyama"])
def test_steps_are_those_of_a_sample_bit_for_bit(name: str) -> None:
    model = GaussianMixtureDenoiser(PROCESS, parameterization="eps")
    times = (1.0, 0.7, 0.4, 0.1)
    label = torch.full((2,), model.conditions["class"].null)
    states: list[torch.Tensor] = []

    def seen(step: int, steps: int, t: float, state: torch.Tensor) -> None:
        states.append(state.clone())

    trilemma.sample(model, 2, sampler=trilemma.sampler(name, grid=times), steps=4, seed=3, callback=seen)
    for number in (1, 2):
        z = states[number - 1]
        output = model(z, torch.full((2,), times[number]), **{"class": label})
        ahead = (*times, 0.0)[number:]
        step = sscs_step(PROCESS, *ahead[:3], parameterization="eps")
        if name == "euler-maruyama":
            step = euler_maruyama_step(PROCESS, *ahead[:2], parameterization="eps")
        assert torch.equal(step(z, output, seed=3, step=number, indices=torch.arange(2)), states[number])


def test_a_process_that_does_not_keep_its_prior_is_refused() -> None:
    with pytest.raises(UsageError, match="keeps its prior"):
        sscs_step(VE(), 0.7, 0.6)
