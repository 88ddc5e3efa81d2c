"""Keyed normals: their definition, their law, and that nothing but the key decides them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.engine.noise import KeyedNoise, keyed_normal
from trilemma.errors import UsageError
from trilemma.numerics.normal import LATENT, PERTURB, PRIOR, STEP, reference_normal
from trilemma.numerics.philox import philox


def exact_normal(seed: int, sample: int, step: int, element: int, stream: int) -> float:
    """One normal from the definition, a word at a time."""
    counter = (element // 4, step, sample % 2**32, ((sample >> 32) << 8 | stream) % 2**32)
    words = [int(word) for word in philox(counter, (seed % 2**32, seed >> 32))]
    pair = element % 4 // 2 * 2
    u_a, u_b = (((word >> 8) + 0.5) / 2**24 for word in words[pair : pair + 2])
    turn = math.cos if element % 2 == 0 else math.sin
    return math.sqrt(-2 * math.log(u_a)) * turn(2 * math.pi * u_b)


@given(
    seed=st.integers(0, 2**64 - 1),
    sample=st.integers(0, 2**56 - 1),
    step=st.integers(0, 2**32 - 1),
    element=st.integers(0, 40),
    stream=st.sampled_from([PRIOR, STEP, PERTURB, LATENT]),
)
def test_definition(seed: int, sample: int, step: int, element: int, stream: int) -> None:
    drawn = reference_normal(seed, torch.tensor([sample]), step, element + 1, stream)
    assert math.isclose(
        float(drawn[0, element]), exact_normal(seed, sample, step, element, stream), rel_tol=1e-13
    )


def test_float32_is_the_float64_normal_to_rounding() -> None:
    indices = torch.arange(2000)
    exact = keyed_normal(3, indices, 5, (1000,), dtype=torch.float64)
    single = keyed_normal(3, indices, 5, (1000,), dtype=torch.float32)
    # Logarithm, square root, cosine and their product each round once or twice: at most 2.5 ulp together.
    assert ((single - exact).abs() <= 5 * 2.0**-24 * exact.abs() + 2.0**-49).all()


def test_law_is_standard_normal() -> None:
    x = keyed_normal(11, torch.arange(1000), 0, (1000,), dtype=torch.float64).flatten()
    n = x.numel()
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    edges = torch.linspace(-4, 4, 81, dtype=torch.float64)
    cumulative = torch.searchsorted(x.sort().values, edges) / n
    assert (cumulative - torch.special.ndtr(edges)).abs().max() < 2 / math.sqrt(n)


@given(
    batch=st.lists(st.integers(0, 2**40), min_size=1, max_size=12),
    shape=st.lists(st.integers(1, 7), min_size=0, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
@settings(deadline=None)
def test_a_sample_is_the_same_alone_and_in_any_batch(
    batch: list[int], shape: list[int], dtype: torch.dtype
) -> None:
    noise = KeyedNoise(9)
    together = noise.normal(torch.tensor(batch), 4, shape, dtype=dtype)
    for row, sample in enumerate(batch):
        alone = noise.normal(torch.tensor([sample]), 4, shape, dtype=dtype)
        assert torch.equal(together[row], alone[0])


def test_elements_do_not_depend_on_the_length() -> None:
    long = keyed_normal(0, torch.tensor([5]), 1, (1031,))
    for length in (0, 1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1000):
        assert torch.equal(keyed_normal(0, torch.tensor([5]), 1, (length,))[0], long[0, :length])


def test_every_part_of_the_key_counts() -> None:
    def draw(seed: int = 1, sample: int = 2, step: int = 3, stream: int = STEP) -> torch.Tensor:
        return keyed_normal(seed, torch.tensor([sample]), step, (64,), stream)

    drawn = [
        draw(),
        draw(seed=1 + 2**32),
        draw(seed=2**63 + 1),
        draw(sample=3),
        draw(sample=2 + 2**32),
        draw(step=4),
        draw(stream=PRIOR),
    ]
    for i, one in enumerate(drawn):
        assert not any(torch.isclose(one, other).any() for other in drawn[:i])


def test_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    KeyedNoise(1).normal(torch.arange(4), 0, (8,))
    assert torch.equal(before, torch.random.get_rng_state())


def test_fills_a_strided_out() -> None:
    out = torch.zeros(6, 10)[:, ::2]
    filled = keyed_normal(1, torch.arange(6), 0, (5,), out=out)
    assert filled is out
    assert torch.equal(out, keyed_normal(1, torch.arange(6), 0, (5,)))


@pytest.mark.parametrize(("seed", "step", "stream"), [(-1, 0, 0), (2**64, 0, 0), (0, 2**32, 0), (0, 0, 256)])
def test_keys_out_of_range(seed: int, step: int, stream: int) -> None:
    with pytest.raises(UsageError, match="out of range"):
        keyed_normal(seed, torch.arange(1), step, (4,), stream)


def test_wrong_out_and_indices() -> None:
    with pytest.raises(UsageError, match="out has shape"):
        keyed_normal(0, torch.arange(2), 0, (4,), out=torch.zeros(2, 5))
    with pytest.raises(UsageError, match="int64 indices"):
        keyed_normal(0, torch.arange(2, dtype=torch.int32), 0, (4,))
