"""Checks of compilation: what runs once a step compiles into one graph, and computes the same there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from trilemma.engine.program import Program, lower
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.sampler import Sampler
from trilemma.ops import linear_step
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.local import local_times
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.outcome import Skipped
from trilemma.testing.scalar import MIXTURE

STEPS = 3


def loop_compiles(sampler: Sampler) -> str:
    """Checks that the whole loop of a few steps on an exact model compiles, network included."""
    if not sampler.has_plan and not sampler.fullgraph:
        raise Skipped("declares fullgraph=False")
    model, times = MIXTURE.denoiser(AngleProcess()), local_times(STEPS)
    z = torch.linspace(-1, 1, 3, dtype=torch.float64).view(-1, 1, 1, 1)
    if not sampler.has_plan:
        predict = cast(Prediction, ModelPrediction(model))
        return _compiles(lambda z: sampler.sample(predict, z, times, lambda step: 0.1 * z, _silent), z)
    process = model.process
    plan = sampler.plan(process, times)
    program = lower(plan, model.parameterization, process, float(times[-1]))
    return _compiles(lambda z: _run(program, model, z), z)


def network_compiles(model: Denoiser, z: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> str:
    if not model.fullgraph:
        raise Skipped("declares fullgraph=False")
    return _compiles(lambda z: model(z, t, **cond), z)


class ModelPrediction:
    """`trilemma.interfaces.prediction.Prediction` of an exact model, with no memory."""

    def __init__(self, denoiser: GaussianMixtureDenoiser) -> None:
        self.denoiser = denoiser

    def __call__(self, z: Tensor, t: float | Tensor, parameterization: str = "x0") -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float64)
        process = self.denoiser.process
        return self.denoiser.predict(z, process.alpha(time), process.sigma(time), parameterization)


def _silent(step: int, t: float, state: Tensor) -> None:
    return


def _run(program: Program, model: Denoiser, start: Tensor) -> Tensor:
    """Runs the rows of a program; the noise of each row is its number."""
    states = [start.clone() for _ in range(program.states)]
    history = start.new_zeros((program.history, *start.shape)) if program.history else None
    for row, (t, slots) in enumerate(zip(program.times, program.slots, strict=True)):
        seen = states[slots.seen]
        linear_step(
            states[slots.write],
            seen,
            states[slots.base],
            model(seen, torch.full((len(start),), t)) if slots.evaluated else None,
            program.table,
            row,
            history=history,
            write_slot=slots.write_history,
            read_slots=slots.history,
            noise=torch.full_like(start, 0.1 * row),
            others=[states[slot] for slot in slots.others],
        )
    return states[program.slots[-1].write]


def _compiles(call: Callable[[Tensor], Tensor], z: Tensor) -> str:
    torch._dynamo.reset()
    with torch.inference_mode():
        plain = call(z.clone())
        try:
            compiled = torch.compile(call, fullgraph=True, backend="eager")(z.clone())
        except Exception as error:
            # Dynamo raises many kinds of error.
            raise AssertionError(
                f"its graph breaks: {str(error).strip().splitlines()[0]}; without a break, or declare fullgraph = False"
            ) from error
        finally:
            torch._dynamo.reset()
    off = float(((compiled - plain).abs() / (1 + plain.abs())).max())
    assert off < 1e-5, f"compiled, it gives values that are {off:.2g} off"
    return "without a break"
