"""Batches of samples, made one by one: the same as of indices that are written out, for any number of them."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import trilemma
from trilemma.engine.batches import Chunk, Chunks
from trilemma.errors import UsageError
from trilemma.numerics.index_ranges import IndexRanges
from trilemma.output import format_indices, parse_indices
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddpm.process import DiscreteVP

MANY = 10**11


@st.composite
def some_runs(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Runs that do not overlap, in any order."""
    ends = sorted(draw(st.sets(st.integers(0, 400), min_size=2, max_size=12)))
    return draw(st.permutations(list(zip(ends[::2], ends[1::2], strict=False))))


@given(some_runs(), st.data())
def test_ranges_are_the_sequence_they_stand_for(runs: list[tuple[int, int]], data: st.DataObject) -> None:
    ranges, listed = IndexRanges(runs), [index for start, stop in runs for index in range(start, stop)]
    assert list(ranges) == listed
    assert ranges == listed
    assert len(ranges) == len(listed)
    assert [ranges[place] for place in range(-len(listed), len(listed))] == listed * 2
    place = data.draw(st.slices(len(listed)))
    assert ranges[place] == listed[place]
    assert [index in ranges for index in range(402)] == [index in set(listed) for index in range(402)]
    assert not ranges.overlap
    assert parse_indices(format_indices(ranges)) == ranges
    assert format_indices(ranges) == format_indices(listed)
    taken = data.draw(st.sets(st.integers(0, 401)))
    assert list(ranges.without(taken)) == [index for index in listed if index not in taken]
    assert IndexRanges([*runs, (listed[-1], listed[-1] + 1)]).overlap
    with pytest.raises(IndexError):
        ranges[len(listed)]


@given(some_runs(), st.integers(1, 90))
def test_batches_of_ranges_are_those_of_the_indices_written_out(
    runs: list[tuple[int, int]], size: int
) -> None:
    ranges = IndexRanges(runs)
    for deterministic in (False, True):
        short, long = (list(Chunks(given, size, deterministic)) for given in (ranges, list(ranges)))
        made = Chunks(ranges, size, deterministic)
        assert len(short) == len(long) == len(made)
        for rows in {len(chunk.indices) for chunk in long} | {size, 64, 7}:
            assert made.of_size(rows) == sum(len(chunk.indices) == rows for chunk in long)
        assert {of(chunk) for chunk in short} == {of(chunk) for chunk in long}
        drawn = torch.full((len(ranges),), -1)
        for chunk in made:
            drawn[chunk.positions] = chunk.indices[chunk.rows]
        assert drawn.tolist() == list(ranges)


def of(chunk: Chunk) -> tuple[frozenset[tuple[int, int, int]], int]:
    """Which index sits in which row for which place."""
    asked = zip(
        chunk.indices[chunk.rows].tolist(), chunk.rows.tolist(), chunk.positions.tolist(), strict=True
    )
    return frozenset(asked), len(chunk.indices)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    "options", [{"n": MANY}, {"indices": range(MANY)}, {"indices": parse_indices(f"5,0-3,7-{MANY}")}]
)
def test_as_many_samples_as_one_likes_are_drawn_a_batch_at_a_time(options, deterministic) -> None:
    model = GaussianDenoiser(DiscreteVP(), 0.1, 0.2, "v", (1, 2, 2))
    tracemalloc.start()
    chunks = trilemma.sample_chunks(model, steps=2, deterministic=deterministic, **options)
    drawn = list(islice(chunks, 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
    assert sum(len(indices) for indices, _ in drawn) >= 128
    assert chunks.provenance["n"] in (MANY, MANY - 1)
    few = trilemma.sample(model, indices=drawn[1][0].tolist(), steps=2, deterministic=deterministic)
    assert torch.equal(few.samples, drawn[1][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": MANY}, "take 1,600 GB of memory"),
        ({"n": MANY, "trajectory": True}, "GB of memory"),
        ({"n": MANY, "batch_size": MANY}, "give a smaller batch_size"),
        ({"n": 10**60}, "from 0 to"),
        ({"indices": range(-5, 3)}, "from 0 to"),
        ({"indices": range(3, 2**56 + 1)}, "from 0 to"),
        ({"indices": range(MANY)}, "take 1,600 GB of memory"),
    ],
)
def test_what_no_memory_holds_is_refused_before_anything_is_drawn(options, message) -> None:
    model = GaussianDenoiser(DiscreteVP(), 0.1, 0.2, "v", (1, 2, 2))
    model.forward = lambda *_, **__: pytest.fail("the network was asked")
    with pytest.raises(UsageError, match=message) as caught:
        trilemma.sample(model, steps=2, dtype=torch.float32, **options)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
