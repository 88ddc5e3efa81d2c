"""Grids of times: exactly the asked number of distinct steps, whatever T and S."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.errors import UsageError
from trilemma.numerics import grids

every_grid = pytest.mark.parametrize("grid", grids.GRIDS)


@every_grid
@pytest.mark.parametrize("T", [10, 50, 1000])
def test_every_number_of_steps_gives_that_many_distinct_table_points(grid: str, T: int) -> None:
    for S in range(1, T + 1):
        times = grids.times(T, S, grid)
        assert times.dtype == torch.float64
        assert len(times) == S + 1
        assert times[-1] == 0
        assert (times.diff() < 0).all()
        indices = grids.table_indices(T, S, grid)
        assert len(set(indices)) == S
        assert min(indices) >= 0
        assert max(indices) < T
        assert times[:-1].tolist() == [(index + 1) / T for index in reversed(indices)]
        if grid in ("trailing", "linspace"):
            assert times[0] == 1  # T − 1 is in
        if grid == "linspace" and S > 1:
            assert indices[0] == 0


@every_grid
@settings(deadline=None)
@given(st.data())
def test_any_table_and_any_number_of_steps(grid: str, data: st.DataObject) -> None:
    T = data.draw(st.integers(1, 5000))
    S = data.draw(st.integers(1, T))
    indices = grids.table_indices(T, S, grid)
    assert len(indices) == S
    assert indices[0] >= 0
    assert indices[-1] <= T - 1
    assert all(a < b for a, b in itertools.pairwise(indices))


@every_grid
def test_all_the_steps_of_the_table_are_the_table(grid: str) -> None:
    assert grids.table_indices(50, 50, grid) == list(range(50))


def test_formulas() -> None:
    assert grids.table_indices(1000, 10, "uniform") == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert grids.table_indices(1000, 10, "leading") == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901]
    assert grids.table_indices(1000, 10, "trailing") == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    assert grids.table_indices(1000, 10, "linspace") == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    root = math.sqrt(800)
    assert grids.table_indices(1000, 10, "quadratic")[:-1] == [int((root * i / 9) ** 2) for i in range(9)]
    assert grids.table_indices(1000, 10, "quadratic")[-1] == 800
    # S that does not divide T: every entry is the formula's, and there are S of them.
    assert grids.table_indices(1000, 30, "uniform") == [math.floor(i * 1000 / 30) for i in range(30)]
    assert grids.table_indices(1000, 7, "trailing") == [142, 285, 428, 570, 713, 856, 999]
    assert grids.table_indices(1000, 1, "linspace") == [999]
    assert grids.table_indices(1000, 1, "trailing") == [999]


@every_grid
@settings(deadline=None)
@given(S=st.integers(1, 2000))
def test_continuous_grids_fall_strictly_from_the_prior_to_zero(grid: str, S: int) -> None:
    times = grids.times(None, S, grid)
    assert len(times) == S + 1
    assert (times.diff() < 0).all()
    assert times[-1] == 0
    assert times[-2] > 0
    assert times[0] <= 1
    if grid in ("trailing", "linspace"):
        assert times[0] == 1


@every_grid
def test_continuous_grids_are_the_limit_of_large_tables(grid: str) -> None:
    large = grids.times(10**7, 20, grid)
    assert torch.allclose(grids.times(None, 20, grid), large, atol=1.1 * grids.SMALLEST_TIME)


@pytest.mark.parametrize("steps", [0, -3, 2.0, True, "10", 11])
def test_impossible_numbers_of_steps(steps: object) -> None:
    with pytest.raises(UsageError, match="steps=") as error:
        grids.times(10, steps)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_continuous_process_takes_any_number_of_steps() -> None:
    assert len(grids.times(None, 5000)) == 5001


def test_unknown_grid_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'trailing'"):
        grids.times(10, 2, "trailling")
