"""The captured loop: what is captured when, and that its form gives the bits of the ordinary one. Graphs need a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine import graphs as capture
from trilemma.engine.noise import InjectedNoise
from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Modified
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.sampler import DDPM


class Multistep(Sampler):
    """Rows that warm up, then repeat: two lags, a base of two rows back, and noise."""

    order = 1
    deterministic = False

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = []
        for r, t in enumerate(times[:-1].tolist()):
            lags = tuple((lag, 0.3 / (1 + lag) + 0.01 * r) for lag in range(min(r, 2) + 1))
            rows.append(Row(t, 0.7, lags, C=0.1 * t, base=min(r, 1)))
        return Tableau(tuple(rows), "x0")


class Unrecorded:
    """In place of graphs: runs what they would launch. Like them it runs nothing when it records."""

    made = 0

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
        warm_up()
        type(self).made += 1
        return body


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> type[Unrecorded]:
    """Captures on the CPU, without graphs; both forms on the reference, whose bits are then one function's."""
    monkeypatch.setenv("TRILEMMA_BACKEND", "reference")
    monkeypatch.setattr(capture, "Recorder", Unrecorded)
    monkeypatch.setattr(capture, "why_impossible", lambda runner: "")
    monkeypatch.setattr(Unrecorded, "made", 0)
    return Unrecorded


SAMPLERS = [DDIM(), DDIM(eta=1.0), DDIM(clip=1.0), DDPM(), Multistep()]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda made: type(made).__name__)
@pytest.mark.parametrize("guidance", [None, CFG(scale=2.0)], ids=str)
@pytest.mark.parametrize("mode", ["loop", "step"])
def test_the_form_that_graphs_hold_gives_the_bits_of_the_loop(
    convolution: Denoiser, unrecorded: type[Unrecorded], sampler: Any, guidance: Any, mode: str
) -> None:
    """Seven samples in batches of three: the second batch replays with other samples and conditions."""
    request: dict[str, Any] = {
        "sampler": sampler,
        "steps": 6,
        "guidance": guidance,
        "cond": {"class": [0, 1, 2, 3]},
        "seed": 2**63 + 5,
        "batch_size": 3,
    }
    expected = trilemma.sample(convolution, 7, **request, capture="off")
    drawn = trilemma.sample(convolution, 7, **request, capture=mode)
    assert torch.equal(drawn.samples, expected.samples)
    assert drawn.provenance["capture"] == {"asked": mode, "ran": mode, "passed_over": {}}
    assert drawn.provenance["nfe"] == expected.provenance["nfe"]
    assert expected.provenance["capture"] == {"asked": "off", "ran": "off", "passed_over": {}}


def test_a_graph_is_recorded_once_for_the_rows_that_are_alike(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    for sampler, mode, graphs in (
        (DDIM(eta=1.0), "step", 1),
        (DDIM(eta=1.0), "loop", 1),
        (Multistep(), "step", 5),  # two rows warm up, the rings turn at two, and the last row keeps nothing
    ):
        unrecorded.made = 0
        trilemma.sample(convolution, 4, sampler=sampler, steps=12, batch_size=2, capture=mode)
        assert unrecorded.made == graphs, (sampler, mode)


def test_a_network_in_another_dtype_is_captured_with_its_conversions(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    request: dict[str, Any] = {"sampler": DDIM(eta=0.5), "steps": 5, "dtype": torch.bfloat16}
    expected = trilemma.sample(convolution, 2, **request, capture="off")
    assert torch.equal(trilemma.sample(convolution, 2, **request, capture="step").samples, expected.samples)


def test_a_callback_follows_captured_steps(convolution: Denoiser, unrecorded: type[Unrecorded]) -> None:
    def followed(mode: str) -> list[tuple[int, int, float, Tensor]]:
        seen: list[tuple[int, int, float, Tensor]] = []

        def callback(step: int, steps: int, time: float, state: Tensor) -> None:
            seen.append((step, steps, time, state.clone()))

        request = trilemma.sample(
            convolution, 2, sampler=Multistep(), steps=5, callback=callback, capture=mode
        )
        assert request.provenance["capture"]["ran"] == ("off" if mode == "off" else "step")
        return seen

    captured, launched = followed("loop"), followed("off")
    assert [entry[:3] for entry in captured] == [entry[:3] for entry in launched]
    assert all(torch.equal(x[3], y[3]) for x, y in zip(captured, launched, strict=True))


def chosen(model: Denoiser, n: int = 4, asked: str = "auto", **request: Any) -> tuple[str, dict[str, str]]:
    settings = {"sampler": DDIM(), "steps": 4, "batch_size": 2, **request}
    made = trilemma.sample(model, n, capture=asked, **settings).provenance["capture"]
    assert made["asked"] == asked
    return made["ran"], made["passed_over"]


def test_auto_takes_what_fits(convolution: Denoiser, unrecorded: type[Unrecorded]) -> None:
    assert chosen(convolution) == ("loop", {})
    ran, why = chosen(convolution, 2)
    assert (ran, list(why)) == ("step", ["loop"])
    assert "one batch" in why["loop"]
    ran, why = chosen(convolution, callback=lambda *_: None)
    assert (ran, list(why)) == ("step", ["loop"])
    assert "callback" in why["loop"]
    ran, why = chosen(convolution, 2, steps=1)
    assert (ran, list(why)) == ("off", ["loop", "step"])
    assert "like another" in why["step"]
    ran, why = chosen(
        convolution, noise=InjectedNoise(steps=torch.zeros(4, 4, 2, 6, 6)), latent=torch.zeros(4, 2, 6, 6)
    )
    assert (ran, list(why)) == ("off", ["loop", "step"])
    assert "made by InjectedNoise" in why["step"]


def test_the_last_and_smaller_batch_is_captured_by_what_it_is_worth(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    ran, why = chosen(convolution, 5)
    assert ran == "loop, step"
    assert list(why) == ["loop"]


def test_what_is_asked_for_is_tried_though_it_is_not_worth_it(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    assert chosen(convolution, 2, "loop") == ("loop", {})
    assert chosen(convolution, 2, "step", steps=1) == ("step", {})
    assert chosen(convolution, 4, "off") == ("off", {})


def test_hooks_of_the_network_are_not_passed_over_unasked(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    hook = convolution.register_forward_hook(lambda *_: None)
    try:
        ran, why = chosen(convolution)
        assert ran == "off"
        assert "hooks" in why["loop"]
        assert chosen(convolution, asked="loop")[0] == "loop"
    finally:
        hook.remove()


def test_a_guidance_that_reads_the_time_is_captured_by_the_loop_alone(
    convolution: Denoiser, unrecorded: type[Unrecorded]
) -> None:
    class Fading(Modified):
        linear = False

        def __init__(self, guidance: BoundGuidance) -> None:
            self.branches = guidance.branches
            self.guidance = guidance

        def evaluated(self, t: float) -> int:
            return 2

        def combine(self, z: Tensor, t: float, predictions: Any, targets: Any) -> Tensor:
            conditional, plain = predictions
            return torch.lerp(plain, conditional, 1 + t)

    class Faded(CFG):
        def bind(self, model: Denoiser, cond: Any, times: Tensor) -> BoundGuidance:
            return Fading(super().bind(model, cond, times))

    request: dict[str, Any] = {"guidance": Faded(scale=2.0), "cond": {"class": 1}}
    ran, why = chosen(convolution, asked="step", **request)
    assert ran == "off"
    assert "reads the time" in why["step"]
    settings: dict[str, Any] = {"sampler": DDIM(), "steps": 4, "batch_size": 2, **request}
    drawn = trilemma.sample(convolution, 4, capture="loop", **settings)
    assert drawn.provenance["capture"]["ran"] == "loop"
    assert torch.equal(drawn.samples, trilemma.sample(convolution, 4, capture="off", **settings).samples)


def test_a_capture_that_fails_is_run_without_one_and_not_tried_again(
    convolution: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class Refused(Unrecorded):
        def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
            warm_up()
            tried.append(body)
            raise capture.CaptureError("the first step could not run without waiting: item()")

    monkeypatch.setattr(capture, "Recorder", Refused)
    monkeypatch.setattr(capture, "why_impossible", lambda runner: "")
    request: dict[str, Any] = {"sampler": DDIM(eta=1.0), "steps": 4, "batch_size": 2}
    drawn = trilemma.sample(convolution, 6, **request)
    assert drawn.provenance["capture"]["ran"] == "off"
    assert all("waiting: item()" in why for why in drawn.provenance["capture"]["passed_over"].values())
    assert list(drawn.provenance["capture"]["passed_over"]) == ["loop", "step"]
    assert len(tried) == 1
    assert torch.equal(drawn.samples, trilemma.sample(convolution, 6, **request, capture="off").samples)


def test_without_cuda_nothing_is_captured_and_the_reason_is_a_line(convolution: Denoiser) -> None:
    for asked in ("auto", "loop", "step"):
        ran, why = chosen(convolution, asked=asked)
        assert ran == "off"
        assert set(why) == set(capture.ATTEMPTS[asked])
        assert all("CUDA" in reason and "\n" not in reason for reason in why.values())


def test_a_sampler_without_a_plan_is_not_captured(convolution: Denoiser) -> None:
    class Own(Sampler):
        order = 1
        deterministic = True

        def sample(self, predict: Any, z: Tensor, times: Tensor, noise: Any, report: Any) -> Tensor:
            return z

    ran, why = chosen(convolution, sampler=Own())
    assert ran == "off"
    assert why["step"] == "the sampler runs steps of its own"


def test_an_unknown_capture_is_refused_before_anything_is_drawn(convolution: Denoiser) -> None:
    with pytest.raises(UsageError, match=r"^unknown capture 'graph'; choose from auto, loop, step, off$"):
        trilemma.sample_chunks(convolution, 1, capture="graph")
