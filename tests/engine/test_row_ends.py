"""The time that a row goes to reaches networks that are told it: flow maps are exact in any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine import graphs
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing.local import StraightProcess

VARIANCE = 0.25


def deviation(t: Tensor) -> Tensor:
    """√(α² s² + σ²) of Gaussian data: the flow carries z_t to z_s = z_t·deviation(s)/deviation(t)."""
    return ((1 - t).square() * VARIANCE + t.square()).sqrt()


class FlowMap(Denoiser):
    """The mean velocity (z_s − z_t)/(s − t) of the flow of N(0, s²) between two times."""

    takes_to = True

    def __init__(self) -> None:
        super().__init__(StraightProcess(), "flow", (1, 2, 2))
        self.seen: list[tuple[float, float]] = []

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        to = told["to"]
        self.seen.append((float(t[0]), float(to[0])))
        assert to.shape == t.shape
        assert to.dtype == t.dtype
        slope = (deviation(to) / deviation(t) - 1) / (to - t)
        return slope.view(-1, 1, 1, 1).to(z.dtype) * z


@dataclass(frozen=True)
class Euler(Sampler):
    """z_s = z_t + (s − t) u, with the time said or left to the next row."""

    order = 1
    deterministic = True
    said: bool = False

    def plan(self, process: Process, times: Tensor) -> Tableau:
        steps = zip(times.tolist(), times[1:].tolist(), strict=False)
        rows = tuple(Row(t, 1.0, ((0, s - t),), to=s if self.said else None) for t, s in steps)
        return Tableau(rows, "flow")


class OwnLoop(Sampler):
    """The same in a loop of its own."""

    order = 1
    deterministic = True
    tells = True

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        for t, s in zip(times.tolist(), times[1:].tolist(), strict=False):
            z = z + (s - t) * (predict(z, t, "flow", s) if self.tells else predict(z, t, "flow"))
        return z


class Silent(OwnLoop):
    tells = False


@pytest.mark.parametrize("sampler", [Euler(), Euler(True), OwnLoop()], ids=["next row", "said", "own loop"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_flow_map_is_exact_in_any_number_of_steps(sampler: Sampler, steps: int) -> None:
    model, start = FlowMap(), torch.randn(3, 1, 2, 2)
    drawn = trilemma.sample(model, sampler=sampler, steps=steps, latent=start)
    torch.testing.assert_close(drawn.samples, VARIANCE**0.5 * start, rtol=1e-5, atol=1e-6)
    # A network of the velocity at t alone would need a thousand steps for that.
    assert model.seen == [(1 - k / steps, 1 - (k + 1) / steps) for k in range(steps)]


def test_stepped_from_outside_and_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    model, request = FlowMap(), {"sampler": Euler(), "steps": 4, "seed": 1}
    expected = trilemma.sample(model, 4, **request).samples
    stepper = trilemma.stepper(model, 4, **request)
    while not stepper.done:
        stepper.step(model(stepper.states, torch.full((4,), stepper.time), **stepper.cond))
    assert torch.equal(stepper.samples, expected)

    class Unrecorded:
        def __init__(self, device: torch.device) -> None:
            pass

        def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
            warm_up()
            return body

    monkeypatch.setenv("TRILEMMA_BACKEND", "reference")
    monkeypatch.setattr(graphs, "Recorder", Unrecorded)
    monkeypatch.setattr(graphs, "why_impossible", lambda loop: "")
    launched = trilemma.sample(model, 4, **request).samples
    for mode in ("loop", "step"):
        captured = trilemma.sample(model, 4, batch_size=2, capture=mode, **request)
        assert captured.provenance["capture"]["ran"] == mode
        assert torch.equal(captured.samples, launched)


@pytest.mark.parametrize("refine", [0, 20])
def test_an_inversion_asks_for_the_steps_that_it_inverts(refine: int) -> None:
    model, images = FlowMap().double(), torch.randn(2, 1, 2, 2, dtype=torch.float64)
    request: dict[str, Any] = {"sampler": Euler(), "steps": 4, "dtype": torch.float64}
    found = trilemma.invert(model, images, refine=refine, **request)
    assert set(model.seen) == {(1 - k / 4, 1 - (k + 1) / 4) for k in range(4)}
    if refine:
        torch.testing.assert_close(found.samples, images / VARIANCE**0.5, rtol=1e-6, atol=1e-6)


def test_repeated_steps_go_where_they_went() -> None:
    model = FlowMap()
    known = {"known": torch.zeros(1, 1, 2, 2), "mask": torch.ones(1, 1, 2, 2), "resample": 2}
    trilemma.sample(model, sampler=Euler(), steps=2, **known)
    assert model.seen == [(1.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 0.0)]


def test_refusals() -> None:
    with pytest.raises(UsageError, match="is told where a step goes, and the sampler's own steps do not say"):
        trilemma.sample(FlowMap(), sampler=Silent(), steps=2)

    class Nowhere(Euler):
        def plan(self, process: Process, times: Tensor) -> Tableau:
            return Tableau((Row(1.0, 1.0, ((0, 1.0),), to=float("nan")),), "flow")

    with pytest.raises(TrilemmaError, match="to = nan in row 1 of 1"):
        trilemma.sample(FlowMap(), sampler=Nowhere(), steps=1)
