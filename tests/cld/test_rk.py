"""Adaptive Runge–Kutta along the probability flow in phase space, against the flow itself."""

from __future__ import annotations

import pytest
import torch
from scipy.integrate import solve_ivp

import trilemma
from trilemma.errors import UsageError
from trilemma.testing import PhaseProcess, run_checks
from trilemma.testing.execution import run_sample
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.solvers.rk import RK

MEAN, VARIANCE = 0.4, 0.25
PROCESSES = {
    "critical": CLD(),
    "under": CLD(friction=0.3, schedule="linear"),
    "over": CLD(inverse_mass=2.0, friction=3.0),
    "kit": PhaseProcess(),
}
STARTS = torch.tensor([[0.0, 0.0], [1.3, 0.0], [-0.8, 0.6], [0.2, -1.1]], dtype=torch.float64)


def linear_flow(process, begin, end):
    """z(end) = A z + b of dz = (F z + ½ G Gᵀ V⁻¹ (z − m μ)) dt, V the covariance of z: the score is the whole one."""

    def slope(t, y):
        time = torch.tensor(t, dtype=torch.float64)
        (mu, cov), G = process.moments(time), process.diffusion(time)
        pull = G @ G.mT @ torch.linalg.inv(VARIANCE * mu[:, None] * mu + cov) / 2
        state = torch.from_numpy(y).view(2, 3)
        shifted = torch.cat([state[:, :2], state[:, 2:] - MEAN * mu[:, None]], 1)
        return (process.drift(time) @ state + pull @ shifted).flatten().numpy()

    first = torch.eye(2, 3, dtype=torch.float64).flatten().numpy()
    solved = solve_ivp(slope, (begin, end), first, "DOP853", rtol=1e-9, atol=1e-11)
    whole = torch.from_numpy(solved.y[:, -1]).view(2, 3)
    return whole[:, :2], whole[:, 2]


def carried(process, times, tolerance, pair="dopri5"):
    model = GaussianMixtureDenoiser(process, (MEAN,), VARIANCE)
    z = STARTS.view(-1, 2, 1, 1)
    sampler = RK(pair, tolerance)
    found = run_sample(sampler, model, torch.tensor(times, dtype=torch.float64), z, torch.zeros_like)
    return found.flatten(1)


@pytest.mark.parametrize("name", PROCESSES)
def test_it_ends_where_the_linear_flow_does(name):
    process = PROCESSES[name]
    A, b = linear_flow(process, 1.0, 0.01)
    expected = STARTS @ A.mT + b
    torch.testing.assert_close(carried(process, [1.0, 0.5, 0.01], 1e-6), expected, rtol=0, atol=3e-5)
    loose = carried(process, [1.0, 0.5, 0.01], 1e-3, "bosh3")
    torch.testing.assert_close(loose, expected, rtol=0, atol=3e-2)
    assert not torch.equal(loose, expected)


def test_upwards_it_goes_the_same_way():
    process = PROCESSES["critical"]
    A, b = linear_flow(process, 0.1, 1.0)
    found = carried(process, [0.1, 1.0], 1e-6)
    torch.testing.assert_close(found, STARTS @ A.mT + b, rtol=0, atol=3e-5)


def test_onto_the_data_it_denoises():
    process = PROCESSES["critical"]
    model = GaussianMixtureDenoiser(process, (MEAN,), VARIANCE)
    stop = torch.tensor(process.earliest_time, dtype=torch.float64)
    before = carried(process, [1.0, stop.item()], 1e-6)
    A, B = process.step_onto_data(stop, "x0")
    x0 = model.predict_stacked(before.view(-1, 2, 1, 1), stop.expand(4), "x0").flatten(1)
    torch.testing.assert_close(carried(process, [1.0, 0.0], 1e-6), before @ A.mT + x0 * B)


def test_a_sample_takes_its_own_steps():
    model = GaussianMixtureDenoiser(CLD())
    options = {"sampler": "rk:tolerance=1e-4", "steps": 10, "seed": 3, "dtype": torch.float64}
    together = trilemma.sample(model, 3, **options)
    alone = torch.cat([trilemma.sample(model, indices=[i], **options).samples for i in range(3)])
    assert together.samples.shape == (3, 1, 1, 1)
    torch.testing.assert_close(alone, together.samples, rtol=0, atol=1e-10)


def test_the_kit_checks_it_in_phase_space():
    names = {record.name for record in run_checks("sampler", "rk") if record.status == "passed"}
    assert "in phase space: tolerance is kept" in names
    assert "in phase space: every parameterization, the data's law" in names


def test_images_of_phase_space_are_not_inverted():
    model = GaussianMixtureDenoiser(CLD())
    with pytest.raises(UsageError, match="inversion needs a process of one") as error:
        trilemma.invert(model, torch.zeros(1, 1, 1, 1), sampler="rk", steps=4)
    assert "\n" not in str(error.value)
