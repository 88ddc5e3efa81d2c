"""A plan that is none is refused in one line that names the sampler and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import trilemma
from trilemma import Row, Sampler, Tableau
from trilemma.errors import TrilemmaError
from trilemma.testing import GaussianDenoiser

GOOD = tuple(Row(1 - n / 4, A=0.5, B=((0, 0.5),)) for n in range(4))


@dataclass(frozen=True)
class Odd(Sampler):
    made: Callable[[], Any] = lambda: None
    order = 1
    deterministic = True

    def plan(self, process: Any, times: torch.Tensor) -> Any:
        return self.made()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: list(GOOD), "Odd.plan returned a list; return Tableau"),
        (lambda: None, "Odd.plan returned a NoneType"),
        (lambda: Tableau([(1.0, 0.5)] * 4, "v"), "no tuple of Row"),
        (lambda: Tableau(iter(GOOD), "v"), "no tuple of Row"),
        (lambda: Tableau(GOOD[:3], "v"), r"returned 3 rows, and Odd.nfe declares 4 evaluations"),
        (lambda: Tableau((*GOOD, GOOD[0]), "v"), r"returned 5 rows, and Odd.nfe declares 4 evaluations"),
        (lambda: Tableau((*GOOD[:3], Row(0.2, math.nan, ((0, 1.0),))), "v"), "A = nan in row 4 of 4"),
        (
            lambda: Tableau((*GOOD[:3], Row(0.2, 1.0, ((0, math.inf),))), "v"),
            "B at lag 0 = inf in row 4 of 4",
        ),
        (lambda: Tableau((*GOOD[:3], Row(0.2, 1.0, ((0, 1.0),), C=math.nan)), "v"), "C = nan in row 4 of 4"),
        (lambda: Tableau((*GOOD[:3], Row(math.nan, 1.0, ((0, 1.0),))), "v"), "t = nan in row 4 of 4"),
        (lambda: Tableau((), "v"), "planned no rows"),
    ],
)
def test_a_plan_that_is_none(made: Callable[[], Any], message: str) -> None:
    model = GaussianDenoiser(trilemma.process("vp-continuous"))
    with pytest.raises(TrilemmaError, match=message) as caught:
        trilemma.sample(model, 2, sampler=Odd(made=made), steps=4)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_list_of_rows_is_as_good_as_a_tuple() -> None:
    model = GaussianDenoiser(trilemma.process("vp-continuous"))
    trilemma.sample(model, 2, sampler=Odd(made=lambda: Tableau(list(GOOD), "v")), steps=4)  # type: ignore[arg-type]
