"""Noise given from outside reaches the sample that it was given for."""

from __future__ import annotations

import pytest
import torch

from trilemma.engine.noise import InjectedNoise
from trilemma.errors import UsageError
from trilemma.numerics.normal import PERTURB, PRIOR, STEP

PRIOR_NOISE = torch.arange(12.0).view(4, 3)
STEP_NOISE = 100 + torch.arange(24.0).view(2, 4, 3)


def test_rows_by_index() -> None:
    noise = InjectedNoise(prior=PRIOR_NOISE, steps=STEP_NOISE)
    indices = torch.tensor([2, 0])
    assert torch.equal(noise.normal(indices, 0, (3,), stream=PRIOR), PRIOR_NOISE[[2, 0]])
    assert torch.equal(noise.normal(indices, 1, (3,), stream=STEP), STEP_NOISE[1][[2, 0]])
    assert noise.normal(indices, 1, (3,), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_steps_may_be_a_list() -> None:
    noise = InjectedNoise(steps=list(STEP_NOISE))
    assert torch.equal(noise.normal(torch.arange(4), 1, (3,)), STEP_NOISE[1])


@pytest.mark.parametrize(
    ("index", "step", "shape", "stream", "message"),
    [
        (0, 2, (3,), STEP, "no noise was injected for step 2"),
        (0, 0, (3,), PERTURB, "no noise was injected for stream 2"),
        (0, 0, (4,), STEP, "samples of shape"),
        (4, 0, (3,), STEP, "sample 4 was asked for"),
    ],
)
def test_what_was_not_given(index: int, step: int, shape: tuple[int, ...], stream: int, message: str) -> None:
    noise = InjectedNoise(steps=STEP_NOISE)
    with pytest.raises(UsageError, match=message):
        noise.normal(torch.tensor([index]), step, shape, stream=stream)


def test_no_prior() -> None:
    with pytest.raises(UsageError, match="the prior"):
        InjectedNoise().normal(torch.arange(1), 0, (3,), stream=PRIOR)
