"""Checks of empty batches: a batch without states is answered without predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.execution import run_sample
from trilemma.testing.guided import guided_prediction
from trilemma.testing.scalar import MIXTURE

_NO_TIMES = torch.empty(0, dtype=torch.float64)


def without_a_sample(sampler: Sampler, steps: int) -> str:
    model = MIXTURE.denoiser(AngleProcess())
    drawn = _answered(lambda: sample(model, indices=[], sampler=sampler, steps=steps).samples)
    _none(drawn, (1, 1, 1))
    if sampler.has_plan:
        return "no samples asked for"
    z, times = drawn.double(), sampler.times(model.process, steps)
    _none(_answered(lambda: run_sample(sampler, model, times, z, lambda _: z)), (1, 1, 1))
    return "no samples asked for, no states in"


def without_a_time(process: Process) -> str:
    K = process.components
    _none(_answered(lambda: process.moments(_NO_TIMES)[0]), (K,))
    _none(_answered(lambda: process.moments(_NO_TIMES)[1]), (K, K))
    states = torch.empty(0, K, 2, 2, dtype=torch.float64)
    _none(_answered(lambda: process.prior(states)), (K, 2, 2))
    if K == 1:
        _none(_answered(lambda: process.perturb(states, _NO_TIMES, states)), (1, 2, 2))
    return "moments and states"


def without_a_state(model: Denoiser, z: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> str:
    """Checks that the network answers a batch of no states, times and conditions with no prediction."""
    with torch.no_grad():
        none = {name: labels[:0] for name, labels in cond.items()}
        _none(_answered(lambda: model(z[:0], t[:0], **none)), model.shape)
    return f"{(0, *model.shape)}"


def without_a_prediction(guidance: Guidance, model: Denoiser, cond: Mapping[str, Any]) -> str:
    z = torch.empty(0, *model.shape, dtype=torch.float64)
    _none(_answered(lambda: guided_prediction(model, guidance, cond, 0)(z, 0.5)), model.shape)
    return "no predictions combined"


def _answered(call: Callable[[], Tensor]) -> Tensor:
    try:
        return call()
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"an empty batch raises {type(error).__name__}: {error}") from error


def _none(found: Tensor, one: tuple[int, ...]) -> None:
    expected = (0, *one)
    assert found.shape == expected, f"an empty batch gives shape {tuple(found.shape)}, not {expected}"
