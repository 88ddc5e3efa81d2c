"""Stepping from outside has the bits of `sample`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma import lookup
from trilemma.engine.stepping import Stepper
from trilemma.errors import TrilemmaError, UsageError
from trilemma.registry.building import samplers_of_components
from trilemma.testing import GaussianMixtureDenoiser

PROCESSES = {1: ("vp", "v"), 2: ("cld", "eps")}
PLANNED = [
    (components, name)
    for components in PROCESSES
    for name in samplers_of_components(components)
    if lookup.sampler(name).has_plan
]


def exact(components: int) -> GaussianMixtureDenoiser:
    process, parameterization = PROCESSES[components]
    return GaussianMixtureDenoiser(
        lookup.process(process), parameterization=parameterization, shape=(1, 2, 2)
    ).eval()


def driven(model: Any, stepper: Stepper) -> Tensor:
    """The loop of another library."""
    while not stepper.done:
        count = len(stepper.states)
        times = torch.full((count,), stepper.time, dtype=torch.float32)
        stepper.step(model(stepper.states, times, **stepper.cond))
    return stepper.samples


@pytest.mark.parametrize(
    "options", [{}, {"guidance": "cfg:scale=3+rescale:phi=0.5", "cond": {"class": [0, 2]}}]
)
@pytest.mark.parametrize(("components", "name"), PLANNED)
def test_every_planned_sampler_steps_to_the_bits_of_sample(
    components: int, name: str, options: dict[str, Any]
) -> None:
    if components == 2 and options:
        options = {"guidance": "cfg:scale=3", "cond": {"class": [0, 2]}}
    model = exact(components)
    request = {"sampler": name, "steps": 5, "seed": 3, "dtype": torch.float32, **options}
    expected = trilemma.sample(model, 3, **request)
    stepper = trilemma.stepper(model, 3, **request)
    assert sum(stepper.steps) == len(stepper.times)
    first = driven(model, stepper)
    assert torch.equal(first, expected.samples)
    stepper.restart()
    assert torch.equal(driven(model, stepper), first)


@pytest.mark.parametrize("name", [name for components, name in PLANNED if components == 1])
def test_it_starts_in_the_middle(name: str) -> None:
    model, images = exact(1), torch.linspace(-1, 1, 8).view(2, 1, 2, 2)
    request = {"sampler": name, "steps": 8, "start": images, "strength": 0.6}
    stepper = trilemma.stepper(model, 2, **request)
    assert stepper.time <= 0.6
    assert torch.equal(driven(model, stepper), trilemma.sample(model, 2, **request).samples)


def test_a_region_is_kept_and_indices_are_heard() -> None:
    model, images = exact(1), torch.linspace(-1, 1, 4).view(1, 1, 2, 2)
    mask = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 2, 2)
    request = {"sampler": "ddim:eta=1", "steps": 6, "known": images, "mask": mask, "resample": 2}
    request |= {"indices": [7, 1000, 3]}
    assert torch.equal(
        driven(model, trilemma.stepper(model, **request)), trilemma.sample(model, **request).samples
    )


@pytest.mark.parametrize(
    ("name", "steps"),
    [("ddim", (1,) * 4), ("heun", (2, 2, 2, 1)), ("pndm:warmup=prk", (4, 4, 4, 1)), ("dpmpp-2m", (1,) * 4)],
)
def test_a_tableau_says_which_rows_make_a_step(name: str, steps: tuple[int, ...]) -> None:
    assert trilemma.stepper(exact(1), sampler=name, steps=4).steps == steps


def test_the_state_is_a_tensor_of_its_own() -> None:
    model = exact(1)
    stepper = trilemma.stepper(model, 2, sampler="ddim", steps=3)
    before = stepper.state
    kept = before.clone()
    after = stepper.step(model(stepper.states, torch.full((2,), stepper.time)))
    assert torch.equal(before, kept)
    after.zero_()
    assert float(stepper.state.abs().sum()) > 0


def test_refusals() -> None:
    model = exact(1)
    with pytest.raises(UsageError, match="runs steps of its own"):
        trilemma.stepper(model, sampler="rk")
    stepper = trilemma.stepper(model, 2, sampler="ddim", steps=2)
    with pytest.raises(UsageError, match=r"expected shape \(2, 1, 2, 2\)"):
        stepper.step(torch.zeros(1, 1, 2, 2))
    stepper.step(torch.full((2, 1, 2, 2), torch.nan))
    with pytest.raises(TrilemmaError, match=r"step 1 of 2 .* not finite in sample 0"):
        stepper.step(torch.zeros(2, 1, 2, 2))
    with pytest.raises(UsageError, match="all evaluations are done"):
        stepper.step(torch.zeros(2, 1, 2, 2))
