"""Rows without an evaluation: a cached prediction is read again, and the sample does not pay for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine.program import lower
from trilemma.errors import TrilemmaError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.execution import run_plan
from trilemma.testing.running import running_checks
from trilemma.testing.scalar import GAUSSIAN


@dataclass(frozen=True)
class Cached(Sampler):
    """DDIM's step in x̂₀, each x̂₀ read by `reads` steps; after noise of variance `first` where that is not 0."""

    order = 1
    deterministic = True
    reads: int = 2
    first: float = 0.0
    declared: bool = True

    def nfe(self, steps: int) -> int:
        return -(-steps // self.reads) if self.declared else steps

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = (level.tolist() for level in process.alpha_sigma(times))
        rows = [Row(float(times[0]), 1.0, (), self.first)] if self.first else []
        for n, t in enumerate(times[:-1].tolist()):
            ratio = sigma[n + 1] / sigma[n]
            rows.append(Row(t, ratio, ((n % self.reads, alpha[n + 1] - alpha[n] * ratio),)))
        return Tableau(tuple(rows), "x0")


def model() -> Any:
    return GAUSSIAN.denoiser(AngleProcess()).eval()


@pytest.mark.parametrize("steps", [6, 7])
@pytest.mark.parametrize("sampler", [Cached(), Cached(3), Cached(2, first=0.5)], ids=str)
def test_a_sample_pays_for_the_evaluations_it_has(sampler: Cached, steps: int) -> None:
    network, calls = model(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    drawn = trilemma.sample(network, 2, sampler=sampler, steps=steps)
    assert drawn.provenance["nfe"] == len(calls) == sampler.nfe(steps)


def test_the_numbers_are_those_of_the_plan() -> None:
    sampler, process, start = (
        Cached(),
        AngleProcess(),
        torch.tensor([[[[0.4]]], [[[-1.2]]]], dtype=torch.float64),
    )
    times = sampler.times(process, 8)
    plan = sampler.plan(process, times)
    drawn = trilemma.sample(model(), sampler=sampler, steps=8, latent=start, dtype=torch.float64)
    expected = [run_plan(plan, process, GAUSSIAN, z) for z in start.flatten().tolist()]
    assert drawn.samples.flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_guided_stepped_and_chunked() -> None:
    network = trilemma.testing.GaussianMixtureDenoiser(AngleProcess(), shape=(1, 2, 2)).eval()
    for sampler, evaluations in ((Cached(), (1, 1, 1)), (Cached(2, first=0.5), (1, 1, 1))):
        request: dict[str, Any] = {
            "sampler": sampler,
            "steps": 6,
            "cond": {"class": [0, 2]},
            "guidance": "cfg:scale=3",
        }
        drawn = trilemma.sample(network, 5, **request)
        assert drawn.provenance["nfe"] == 6
        assert torch.equal(drawn.samples, trilemma.sample(network, 5, batch_size=2, **request).samples)
        stepper = trilemma.stepper(network, 5, **request)
        assert stepper.steps == evaluations
        while not stepper.done:
            states = stepper.states
            stepper.step(network(states, torch.full((len(states),), stepper.time), **stepper.cond))
        assert torch.equal(stepper.samples, drawn.samples)


def test_a_prediction_that_a_later_row_reads_is_made() -> None:
    rows = (Row(1.0, 1.0, ()), Row(0.5, 1.0, ((1, 1.0),)), Row(0.2, 1.0, ()))
    program = lower(Tableau(rows, "x0"), "eps", AngleProcess())
    assert [slots.evaluated for slots in program.slots] == [1, 0, 0]
    assert program.evaluations == 1
    # Nothing is read off a network that was not asked, so nothing of it can be infinite.
    assert lower(Tableau((Row(0.0, 1.0, ()),), "x0"), "eps", AngleProcess()).evaluations == 0


def test_a_plan_pays_what_its_sampler_declares() -> None:
    with pytest.raises(
        TrilemmaError, match=r"6 rows, 3 of them without an evaluation, and Cached.nfe declares 6"
    ):
        trilemma.sample(model(), sampler=Cached(declared=False), steps=6)


def test_the_kit_takes_it() -> None:
    checks = dict(running_checks(Cached()))
    assert "4 calls" in checks["nfe and times of the network's calls"]()
    assert (
        "4 calls of the network and 7 fused steps" in checks["no host read and no allocation in the loop"]()
    )
