"""Noise keyed by time: one seed, one path, whatever the steps."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch

import trilemma
from trilemma import lookup
from trilemma.engine.brownian import BrownianNoise, brownian_noise, increment, point
from trilemma.engine.noise import KeyedNoise
from trilemma.errors import UsageError
from trilemma.interfaces.sampler import Sampler
from trilemma.numerics.normal import PRIOR
from trilemma.testing import GaussianMixtureDenoiser
from trilemma.testing.local import ExplodingProcess
from trilemma.testing.orders import brownian_samples
from trilemma.testing.scalar import MIXTURE

# Around octaves, inside one, over many, from nothing and up to what is left of the noise.
CLOCK = [0.0, 1e-20, 1e-9, 3e-4, 0.7, 0.7001, 1.0, 1.5, 2.0, 3.1, 900.0, 1e9]
POINTS = [found for found in map(point, CLOCK) if found is not None]


def path(points: list[Any], n: int = 1, elements: int = 200_000) -> torch.Tensor:
    """Normalised increments [spans, n, elements] between neighbouring points."""
    spans = tuple(itertools.pairwise(points))
    noise = BrownianNoise(KeyedNoise(3), spans)
    return torch.stack([noise.normal(torch.arange(n), row, (elements,)) for row in range(len(spans))])


def length(a: tuple[int, int], b: tuple[int, int]) -> float:
    """b − a."""
    start, end = (2.0**e * (1 + q / 2**16) if e >= -40 else 0.0 for e, q in (a, b))
    return end - start


def test_increments_are_independent_standard_normals() -> None:
    points = sorted(set(POINTS))
    drawn = path(points)[:, 0].double()
    covariance = drawn @ drawn.T / drawn.shape[1]
    off = covariance - torch.eye(len(points) - 1, dtype=torch.float64)
    assert off.abs().max() < 5 / math.sqrt(drawn.shape[1])
    assert drawn.mean(1).abs().max() < 5 / math.sqrt(drawn.shape[1])


def test_the_weights_are_those_of_a_brownian_path_exactly() -> None:
    """Cov(W_b − W_a, W_d − W_c) is the length that both intervals have in common."""
    spans = [(a, b) for a, b in itertools.combinations(sorted(set(POINTS)), 2)]
    for first, second in itertools.combinations(spans, 2):
        one, two = dict(increment(*first)), dict(increment(*second))
        found = math.fsum(weight * two.get(key, 0.0) for key, weight in one.items())
        common = max(0.0, length(max(first[0], second[0]), min(first[1], second[1])))
        expected = common / math.sqrt(length(*first) * length(*second))
        assert found == pytest.approx(expected, abs=1e-12)


def test_increments_add_up_to_those_of_longer_steps() -> None:
    a, b, c = map(point, (0.3, 0.71, 40.0))
    fine, whole = path([a, b, c], 2, 50), path([a, c], 2, 50)
    joined = math.sqrt(length(a, b)) * fine[0] + math.sqrt(length(b, c)) * fine[1]
    torch.testing.assert_close(joined / math.sqrt(length(a, c)), whole[0])


@pytest.mark.parametrize("sampler", ["euler-maruyama", "dpmpp-2m-sde"])
def test_the_strong_error_falls_with_the_order_that_the_kit_measures(sampler: str) -> None:
    made, process = trilemma.sampler(sampler), ExplodingProcess()
    reference = brownian_samples(made, process, 1280)
    errors = [
        float((brownian_samples(made, process, steps) - reference).square().mean().sqrt())
        for steps in (20, 40, 80, 160)
    ]
    assert all(after < 0.75 * before for before, after in itertools.pairwise(errors)), errors
    assert 0.7 < math.log(errors[0] / errors[-1], 8) < 1.4
    # Keyed by the row, 20 steps from the same prior draw other samples.
    options: dict[str, Any] = {"sampler": sampler, "steps": 20, "batch_size": len(reference)}
    keyed = trilemma.sample(MIXTURE.denoiser(process), len(reference), **options).samples.flatten()
    assert float((keyed - reference).square().mean().sqrt()) > 2 * errors[0]


def model() -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(ExplodingProcess(), shape=(1, 2, 2)).eval()


REQUEST: dict[str, Any] = {"sampler": "dpmpp-2m-sde", "steps": 6, "seed": 4, "noise": "brownian"}


def test_a_sample_is_the_same_in_any_chunks_and_stepped_from_outside() -> None:
    whole = trilemma.sample(model(), 7, **REQUEST).samples
    assert torch.equal(whole, trilemma.sample(model(), 7, batch_size=3, **REQUEST).samples)
    assert torch.equal(whole[4:5], trilemma.sample(model(), indices=[4], **REQUEST).samples)
    assert not torch.equal(whole, trilemma.sample(model(), 7, **REQUEST | {"seed": 5}).samples)
    assert not torch.equal(whole, trilemma.sample(model(), 7, **REQUEST | {"noise": "keyed"}).samples)
    stepper = trilemma.stepper(model(), 7, **REQUEST)
    while not stepper.done:
        stepper.step(model()(stepper.states, torch.full((7,), stepper.time)))
    assert torch.equal(stepper.samples, whole)


def test_the_provenance_says_so() -> None:
    record = trilemma.sample(model(), 2, **REQUEST).provenance
    assert (record["noise"], record["seed"]) == ("BrownianNoise", 4)
    assert (
        "BrownianNoise, not by the kernel"
        in trilemma.sample(model(), 2, capture="loop", **REQUEST).provenance["capture"]["passed_over"]["loop"]
        or not torch.cuda.is_available()
    )
    json.dumps(record)


def test_what_is_read_twice_or_stands_still_takes_the_noise_of_its_row() -> None:
    """Repeated steps need noise of their own, as a path has none left; so do corrections that stay at a time."""
    process, keyed = ExplodingProcess(), KeyedNoise(4)
    indices, shape = torch.arange(2), (3,)

    def rows(sampler: str, **options: Any) -> tuple[BrownianNoise, int]:
        made = trilemma.sampler(sampler)
        assert isinstance(made, Sampler)
        resolved = trilemma.stepper(
            model(), sampler=made, noise="brownian", seed=4, steps=4, **options
        )._resolved
        assert isinstance(resolved.noise, BrownianNoise)
        return resolved.noise, len(resolved.program)

    known = {"known": torch.zeros(1, 1, 2, 2), "mask": torch.ones(1, 1, 2, 2)}
    noise, count = rows("ddim:eta=1", resample=2, **known)
    again = [noise.spans[row] is None for row in range(count)]
    # Each step goes down, up and down again; the last one adds no noise.
    assert again == [True, False, True, False, True, False, True, True]
    for row in range(count):
        own = torch.equal(noise.normal(indices, row, shape), keyed.normal(indices, row, shape))
        assert own == again[row]
    noise, count = rows("ddim:eta=1", resample=2, jump=2, **known)
    # Of two passes over two steps, the second one reads no stretch that the first one has read.
    again = [noise.spans[row] is None for row in range(count)]
    assert again == [False, True, True, False, False, True, True, True]
    noise, count = rows("predictor-corrector")
    moving = [row for row in range(count) if noise.spans[row] is not None]
    assert 0 < len(moving) < count
    assert torch.equal(
        noise.normal(indices, 0, shape, stream=PRIOR), keyed.normal(indices, 0, shape, stream=PRIOR)
    )
    own_steps = brownian_noise(4, process, None, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))
    assert [span is not None for span in own_steps.spans] == [True, False]


def test_refusals() -> None:
    with pytest.raises(UsageError, match="unknown noise 'brown'; choose from keyed, brownian"):
        trilemma.sample(model(), noise="brown")
    cld = GaussianMixtureDenoiser(lookup.process("cld"), parameterization="eps", shape=(1, 2, 2))
    with pytest.raises(UsageError, match="noise='brownian' needs a process of one component"):
        trilemma.sample(cld, sampler="sscs", noise="brownian")


def test_points_of_the_clock() -> None:
    assert point(math.inf) is None
    assert point(math.nan) is None
    assert point(0.0) == point(1e-300) == (-41, 0)
    assert point(2.0 - 1e-9) == point(2.0) == (1, 0)
    assert point(1.5) == (0, 2**15)
