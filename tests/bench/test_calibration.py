"""The calibration measures both ways of what a network calls, and takes the faster."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from trilemma.bench import calibration
from trilemma.bench.calibration import Call, Task, calibrated, coarse_first, grid
from trilemma.ops import choice, native
from trilemma.ops.choice import CHOSEN, NATIVE, REASONS

pytestmark = pytest.mark.skipif(bool(native.load()), reason=native.load())


def is_left(op: str = "conv3x3") -> bool:
    return bool(choice.why_left(op, torch.float32, 0, 1, 1))


def task(slow: bool, made: list[bool], sizes: tuple[int, int] = (64, 16), work: float = 1.0) -> Task:
    """A call that takes longer by PyTorch, or by ours."""

    def prepare() -> Callable[[], Call]:
        def make() -> Call:
            made.append(is_left())
            return lambda: time.sleep(0.002 if is_left() == slow else 0.0)

        return make

    return Task("conv3x3", "float32", "contiguous", sizes, work, prepare)


@pytest.mark.parametrize(("slow", "way"), [(True, "native"), (False, "pytorch")])
def test_the_faster_way_is_recorded(slow: bool, way: str) -> None:
    made: list[bool] = []
    before = choice.in_force()
    record = calibrated(0.05, [task(slow, made)])
    (cell,) = record.cells
    assert cell.way == way
    assert (cell.ratio > 1) == slow
    # A call is prepared by the way that it is measured by.
    assert made == [False, True]
    assert record.machine == choice.Machine.here()
    assert choice.in_force() is before
    assert not is_left()


def test_what_is_not_reached_is_left_out() -> None:
    done: list[tuple[int, int]] = []
    tasks = [task(True, [], (2**power, 16), work=power) for power in range(9)]
    record = calibrated(1e-6, tasks, lambda *told: done.append(told))
    assert [cell.sizes for cell in record.cells] == [(1, 16)]
    assert done[-1] == (9, 9)


def test_the_ends_of_every_group_come_first() -> None:
    tasks = list(grid())
    ordered = coarse_first(tasks)
    assert sorted(map(id, ordered)) == sorted(map(id, tasks))
    groups = {(entry.op, entry.dtype, entry.layout) for entry in tasks}
    assert groups == {
        (op, dtype, layout)
        for op, chosen in CHOSEN.items()
        for dtype in calibration.DTYPES
        for layout in chosen.layouts
        # Which has no native kernel.
        if (op.removesuffix("_backward"), layout) != ("layer_norm", "strided")
    }
    first = ordered[: 2 * len(groups)]
    for group in groups:
        work = [entry.work for entry in tasks if (entry.op, entry.dtype, entry.layout) == group]
        ends = [entry.work for entry in first if (entry.op, entry.dtype, entry.layout) == group]
        assert ends == [min(work), max(work)]


@pytest.mark.parametrize("op", CHOSEN)
def test_the_calls_of_the_grid_take_the_way_that_is_forced(op: str) -> None:
    """The smallest of each dtype and layout runs by both ways, in agreement, and says which it was."""
    smallest: dict[tuple[str, str], Task] = {}
    for entry in grid():
        if entry.op == op and entry.work <= smallest.get((entry.dtype, entry.layout), entry).work:
            smallest[entry.dtype, entry.layout] = entry
    assert len(smallest) in (2, 4)
    for entry in smallest.values():
        make = entry.prepare()
        results = []
        for way in (NATIVE, choice.PYTORCH):
            with choice.forced({op: way}):
                found = make()()
            results.append(found if isinstance(found, tuple) else (found,))
        for one, other in zip(*results, strict=True):
            assert (one - other).abs().max() <= 0.05 * one.abs().max()
    assert choice.PYTORCH in REASONS
