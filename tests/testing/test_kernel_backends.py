"""A kernel backend answers to the arguments of the engine's operators, and a wrong one of any operator is caught."""

from __future__ import annotations

from functools import partial

import pytest

from trilemma import ops
from trilemma.bench.cells import ALL_CELLS
from trilemma.testing import check_kernel_backend

OPERATORS = {name: getattr(ops, name.removesuffix("_backward")) for name in ALL_CELLS}


class Same:
    operators = OPERATORS


def scaled(operator, *args, **kwargs):
    """One per cent too much, in what is returned or written to the first argument."""
    answer = operator(*args, **kwargs)
    if answer is None:
        args[0].mul_(1.01)
        return None
    return answer * 1.01


def test_the_engines_own_operators_pass():
    found = {record.name: record.status for record in check_kernel_backend(Same)}
    assert set(found.values()) == {"passed"}
    assert all(f"{name} equals its definition" in found for name in ALL_CELLS)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_a_wrong_operator_is_caught(name):
    class Wrong:
        operators = {name: partial(scaled, OPERATORS[name])}  # noqa: RUF012

    failed = [record.name for record in check_kernel_backend(Wrong) if record.failed]
    assert failed == [f"{name} equals its definition"]
