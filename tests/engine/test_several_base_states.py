"""Rows that read several states: the Langevin steps of an energy model read y and the fixed x̃."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine.program import lower
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.denoiser import Denoiser, gradient_of
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing.exact_processes import AngleProcess

# Precisions of the energy and of the noise between x̃ and x, whose sum is κ = 3.
ENERGY, NOISE = 2.0, 1.0
SQUARED_STEP = 0.2


class Energy(Denoiser):
    """F(z) = −a z²/2: its gradient is the score of N(0, 1/a)."""

    gradient = True

    def __init__(self) -> None:
        super().__init__(AngleProcess(), "score", (1, 32, 32))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return gradient_of(lambda y: -ENERGY / 2 * y.square().flatten(1).sum(1), z)


@dataclass(frozen=True)
class Langevin(Sampler):
    """y ← y + s²/2 (∇F(y) + (x̃ − y)/σ²) + s ξ, from the state x̃ at the prior."""

    order = 0
    deterministic = False
    rows: int = 60

    def plan(self, process: Process, times: Tensor) -> Tableau:
        move = SQUARED_STEP / 2
        t = float(times[0])
        A, B, C = 1 - move * NOISE, ((0, move),), math.sqrt(SQUARED_STEP)
        rows = [Row(t, A, B, C, D=((r, move * NOISE),)) for r in range(self.rows)]
        return Tableau(tuple(rows), "score", steps=(self.rows,))

    def nfe(self, steps: int) -> int:
        return self.rows


def test_langevin_has_the_variance_of_its_steps() -> None:
    """κ = 3, s² = .2: 1/(κ (1 − s² κ/4)) = .39216."""
    kappa = ENERGY + NOISE
    expected = 1 / (kappa * (1 - SQUARED_STEP * kappa / 4))
    assert abs(expected - 0.39216) < 1e-5
    drawn = trilemma.sample(Energy(), 128, sampler=Langevin(), steps=1, trajectory=True)
    fixed, last = drawn.trajectory[0], drawn.samples
    assert abs((last - NOISE / kappa * fixed).var() / expected - 1) < 0.01
    assert drawn.provenance["nfe"] == 60


def test_the_fixed_state_is_kept_in_one_buffer() -> None:
    plan = Langevin().plan(AngleProcess(), torch.tensor([1.0, 0.0]))
    program = lower(plan, "score", AngleProcess())
    assert program.states == 2
    assert {slots.others for slots in program.slots} == {(0,)}
    # A first row, a last one that may write over the fixed state, and all others alike.
    assert len(set(program.slots)) == 3


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_sample_is_the_same_in_any_chunks_and_stepped_from_outside(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", backend)
    model, request = Energy(), {"sampler": Langevin(5), "steps": 1, "seed": 9}
    whole = trilemma.sample(model, 7, **request).samples
    assert torch.equal(whole, trilemma.sample(model, 7, batch_size=3, **request).samples)
    assert torch.equal(whole[4:5], trilemma.sample(model, indices=[4], **request).samples)
    stepper = trilemma.stepper(model, 7, **request)
    assert stepper.steps == (5,)
    while not stepper.done:
        stepper.step(model(stepper.states, torch.full((7,), stepper.time)))
    assert torch.equal(stepper.samples, whole)


def test_refusals() -> None:
    def lowered(*D: tuple[int, float]) -> None:
        lower(
            Tableau((Row(1.0, 1.0, ((0, 1.0),)), Row(0.5, 1.0, ((0, 1.0),), D=D)), "x0"), "x0", AngleProcess()
        )

    lowered((0, 1.0), (1, 1.0), (1, 1.0))
    with pytest.raises(TrilemmaError, match=r"row 2 .* names 4 states in D; the fused step reads at most 3"):
        lowered(*((0, 1.0),) * 4)
    with pytest.raises(TrilemmaError, match=r"row 2 .* reads further back"):
        lowered((2, 1.0))
    with pytest.raises(TrilemmaError, match=r"row 2 .* reads further back"):
        lowered((-1, 1.0))
    known = {"known": torch.zeros(1, 1, 32, 32), "mask": torch.ones(1, 1, 32, 32)}
    with pytest.raises(UsageError, match="stages or a history"):
        trilemma.sample(Energy(), sampler=Langevin(1), steps=1, resample=2, **known)
