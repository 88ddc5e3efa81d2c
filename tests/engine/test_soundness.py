"""Requests that cannot be right: told or refused in one line with a cure."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

import trilemma
from trilemma import lookup
from trilemma.engine.soundness import BLOWN_UP, FAR, check_start, deviation, prior_gap
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.registry.building import samplers_of_components
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.law import sample_law
from trilemma.testing.local import local_times
from trilemma_plugins.cld.process import CLD
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM
from trilemma_plugins.processes.exploding import EDM, VE
from trilemma_plugins.processes.flow import Flow
from trilemma_plugins.processes.sub_vp import SubVP
from trilemma_plugins.solvers.heun import Heun
from trilemma_plugins.vdm.process import VDM

PROCESSES: list[Process] = [
    DiscreteVP(), DiscreteVP("cosine"), ContinuousVP(), ContinuousVP("cosine"), SubVP(), VE(), EDM(), Flow(),
    Flow(shift=3.0), VDM(),
]  # fmt: skip
GRIDS = ("uniform", "quadratic", "leading", "trailing", "linspace", "squares", "lambda", "sigma", "karras")
# These may draw too wide at few steps, and say so: explicit in time, or made for small even steps or levels of their
# own.
TOLD = ("dpm", "euler-maruyama", "pndm", "recovery-langevin")


@pytest.mark.parametrize("name", samplers_of_components(1))
def test_every_plan_on_every_process_grid_and_few_steps_is_finite_or_refused(name: str) -> None:
    for grid in (None, *GRIDS):
        sampler: Any = trilemma.sampler(name, **({} if grid is None else {"grid": grid}))
        if not sampler.has_plan:
            pytest.skip("it makes no plan")
        for process in PROCESSES:
            for steps in (1, 2, 3, 4, 6, 9, 12):
                where = f"{name} on {process} with grid {grid} in {steps} steps"
                times = sampler.times(process, steps)
                try:
                    check_start(name, sampler, process, times)
                    plan = sampler.plan(process, times)
                except UsageError:
                    continue
                wide = deviation(plan, process, 0.25) / 0.5
                assert math.isfinite(wide), where
                if grid is None and name not in TOLD:
                    assert wide < BLOWN_UP, f"{where} draws {wide:.2g} times too wide"


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpmpp-2m", "unipc:p=6", "euler-ancestral", "lms"])
def test_the_deviation_of_a_plan_is_that_of_its_exact_law(sampler: str) -> None:
    made = trilemma.sampler(sampler)
    for process in (DiscreteVP(), EDM()):
        plan = made.plan(process, local_times(7))
        assert deviation(plan, process, 0.25) == pytest.approx(
            math.sqrt(sample_law(plan, process, 0.0, 0.25)[1])
        )


@pytest.mark.parametrize("name", ["euler-maruyama", "pndm:grid=trailing", "pndm:warmup=prk,grid=karras"])
def test_what_cannot_start_from_noise_alone_says_so(name: str) -> None:
    model = GaussianDenoiser(Flow(), 0.3, 0.25, "flow")
    with pytest.raises(UsageError, match="nothing is left of the data") as error:
        trilemma.sample(model, sampler=name, steps=5)
    assert "grid=leading" in str(error.value)
    for sampler in ("euler-maruyama:grid=leading", "pndm:grid=leading"):
        assert trilemma.sample(model, sampler=sampler, steps=30).samples.isfinite().all()


def test_a_plan_that_blows_up_is_told() -> None:
    model = GaussianDenoiser(ContinuousVP("cosine"), 0.0, 0.25)
    with pytest.warns(UserWarning, match="euler-maruyama blows up") as record:
        trilemma.sample(model, sampler="euler-maruyama", steps=4)
    assert "\n" not in str(record[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trilemma.sample(model, sampler="euler-maruyama", steps=60)


@pytest.mark.parametrize("process", [DiscreteVP("cosine"), ContinuousVP("cosine"), EDM(), Flow()], ids=str)
@pytest.mark.parametrize("sampler", ["heun", "restart:restarts=0"])
def test_heun_stays_at_the_solution_in_few_steps(process: Process, sampler: str) -> None:
    """Of the flow from z = √(α² s² + σ²), whose end is s; 2e4 times as far with the rule in ρ at two steps."""
    model = GaussianDenoiser(process, 0.0, 0.25, "x0")
    for steps in (2, 3, 5, 8):
        made = trilemma.sampler(sampler)
        alpha, sigma = process.alpha_sigma(made.times(process, steps)[:1])
        start = (alpha.square() * 0.25 + sigma.square()).sqrt().view(1, 1, 1, 1)
        drawn = trilemma.sample(model, latent=start, sampler=made, steps=steps, dtype=torch.float64).samples
        assert abs(float(drawn) - 0.5) < 0.6


def test_steps_of_the_usual_length_are_heuns_own() -> None:
    process = EDM()
    sampler = Heun()
    times = sampler.times(process, 18)
    ratios = process.alpha_sigma(times)[1][:-2] / process.alpha_sigma(times)[1][1:-1]
    assert float(ratios.max()) < 4


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("cld", False), ("cld:beta=1.0", True), ("cld:beta=0.5", True), ("cld:friction=0.05", True), ("vp", False),
        ("vp:T=10", True), ("vp:beta_max=0.002", True), ("vp-continuous:beta_max=2.0", True),
        ("ve:sigma_max=2.0", True),
        ("edm:sigma_max=2.0", True), ("vdm:gamma_max=1.0", True), ("sub-vp:beta_max=2.0", True), ("flow", False),
        ("vdm", False), ("edm", False), ("ve", False), ("sub-vp", False),
    ],
)  # fmt: skip
def test_a_prior_that_the_process_does_not_reach_is_told_with_the_number(spec: str, told: bool) -> None:
    process = lookup.process(spec)
    gap = prior_gap(process)
    assert (gap > FAR) == told
    from trilemma.testing.mixture import GaussianMixtureDenoiser

    model = GaussianMixtureDenoiser(process, (0.0,), 0.25)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        sampler = "euler-maruyama" if isinstance(process, CLD) else "ddim"
        trilemma.sample(model, sampler=sampler, steps=5)
    said = [str(entry.message) for entry in record if "away from its prior" in str(entry.message)]
    assert bool(said) == told
    assert all(f"{gap:.2g}"[:3] in line for line in said)


def test_the_gap_is_the_divergence_in_closed_form() -> None:
    alpha = math.exp(-0.25 * (2.0 - 0.1) - 0.05)
    variance = 1 - alpha**2
    exact = (alpha**2 + variance - 1 - math.log(variance)) / 2
    assert prior_gap(ContinuousVP(beta_max=2.0)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("strength", [0.05, 0.0999])
def test_a_strength_below_the_grid_is_refused_and_not_noised_above_itself(strength: float) -> None:
    model = GaussianDenoiser(DiscreteVP(), 0.3, 0.25)
    start = torch.zeros(1, 1, 1, 1)
    with pytest.raises(UsageError, match="smallest time of the grid") as error:
        trilemma.sample(model, sampler=DDPM(), steps=10, start=start, strength=strength)
    assert "0.1" in str(error.value)
    drawn = trilemma.sample(model, sampler=DDPM(), steps=10, start=start, strength=0.1)
    assert drawn.provenance["start"]["time"] == pytest.approx(0.1)
