"""The loop as CUDA graphs hold it, by the CUDA kernels: the bits of the ordinary loop; and the graphs, on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.engine import graphs as capture
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.ops.operator import Operator
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM


class Small(Denoiser):
    """A convolution and a class embedding."""

    def __init__(self) -> None:
        super().__init__(DiscreteVP(), "v", (2, 6, 6), [ClassCondition("class", 4, null=4)])
        self.convolution = nn.Conv2d(2, 2, 3, padding=1)
        self.classes = nn.Embedding(5, 2)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        embedding = self.classes(cond["class"]) + t[:, None].to(z.dtype)
        return (self.convolution(z) + embedding[..., None, None]).tanh()


class Waiting(Small):
    """Reads a number back."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return super().forward(z, t, **cond) * float(t[0] >= 0)


class Synchronizing(Small):
    """Waits for the device in a way that torch does not notice before the capture."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        torch.cuda.synchronize()
        return super().forward(z, t, **cond)


def small(kind: type[Small] = Small) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval().requires_grad_(False)


class Unrecorded:
    """In place of graphs, where there is no GPU: runs what they would launch."""

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
        warm_up()
        return body


def drawn(model: Small, n: int, mode: str, **request: Any) -> Tensor:
    settings = {
        "sampler": DDIM(eta=1.0),
        "steps": 6,
        "batch_size": 4,
        "cond": {"class": [0, 1, 2]},
        "seed": 2**64 - 3,
    }
    made = trilemma.sample(model, n, capture=mode, **{**settings, **request})
    assert made.provenance["capture"] == {"asked": mode, "ran": mode, "passed_over": {}}
    assert made.provenance["backend"] == "native"
    return made.samples.cpu()


class Wide(Sampler):
    """Rows of two and more states, with and without an evaluation, and with noise."""

    order = 0
    deterministic = False

    def nfe(self, steps: int) -> int:
        return -(-steps // 2)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        rows = []
        for r, t in enumerate(times[:-1].tolist()):
            rows.append(Row(t, 0.4, ((r % 2, 0.3),), 0.1 * t, D=((r, 0.2), (min(r, 1), 0.1))))
        return Tableau(tuple(rows), "x0")


class Drawing(Small):
    """Is told a latent of its own and where the step goes."""

    draws: Mapping[str, tuple[int, ...]] = MappingProxyType({"latent": (2, 6, 6)})
    takes_to = True

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        cond = {"class": told["class"]}
        return super().forward(z, t - told["to"], **cond) + 0.1 * told["latent"]


@pytest.mark.parametrize("kind", [Small, Drawing])
@pytest.mark.parametrize(
    "sampler", [DDIM(eta=1.0), DDIM(clip=1.0), DDPM(), Wide()], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize("guidance", [None, CFG(scale=2.0)], ids=str)
@pytest.mark.parametrize("mode", ["loop", "step"])
def test_a_captured_loop_gives_the_bits_of_the_ordinary_one(
    device: Any, sampler: Any, guidance: Any, mode: str, kind: type[Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(kind)
    if device.name == "cuda":
        model = model.cuda()
    else:

        def replay(*arguments: Any) -> None:
            device.operators.linear_step_replay(*arguments, backend="native")

        ordinary = Operator.launcher
        monkeypatch.setattr(
            Operator,
            "launcher",
            lambda found: replay if found.name == "linear_step_replay" else ordinary(found),
        )
        monkeypatch.setattr(capture, "Recorder", Unrecorded)
        monkeypatch.setattr(capture, "why_impossible", lambda runner: "")
    request = {"sampler": sampler, "guidance": guidance}
    assert torch.equal(drawn(model, 12, mode, **request), drawn(model, 12, "off", **request))


def needs_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU")


@pytest.mark.cuda
def test_auto_captures_the_loop_of_many_batches_and_the_step_of_one() -> None:
    needs_gpu()
    model = small().cuda()
    for n, ran in ((8, "loop"), (4, "step"), (10, "loop, step")):
        made = trilemma.sample(model, n, sampler=DDIM(), steps=6, batch_size=4)
        assert made.provenance["capture"]["ran"] == ran
        launched = trilemma.sample(model, n, sampler=DDIM(), steps=6, batch_size=4, capture="off")
        assert torch.equal(made.samples, launched.samples)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", [Waiting, Synchronizing])
@pytest.mark.parametrize("mode", ["loop", "step"])
def test_a_network_that_waits_runs_without_a_graph_and_leaves_nothing_behind(
    kind: type[Small], mode: str
) -> None:
    needs_gpu()
    request: dict[str, Any] = {"sampler": DDIM(eta=1.0), "steps": 4, "batch_size": 2}
    made = trilemma.sample(small(kind).cuda(), 6, capture=mode, **request)
    assert made.provenance["capture"]["ran"] == "off"
    why = made.provenance["capture"]["passed_over"][mode]
    assert "without waiting" in why or "could not be captured" in why
    expected = trilemma.sample(small().cuda(), 6, capture="off", **request)
    assert torch.equal(made.samples, expected.samples)
    assert torch.cuda.get_sync_debug_mode() == 0
    torch.randn(3, device="cuda")  # torch's generator does not believe that a capture goes on
    assert trilemma.sample(small().cuda(), 6, capture=mode, **request).provenance["capture"]["ran"] == mode


@pytest.mark.cuda
def test_an_error_names_the_step_of_a_captured_loop() -> None:
    needs_gpu()

    class Breaking(Small):
        def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
            return super().forward(z, t, **cond) / (t > 0.5)[:, None, None, None]

    with pytest.raises(trilemma.errors.TrilemmaError, match=r"step 4 of 6 .* sample 0;"):
        trilemma.sample(small(Breaking).cuda(), 8, sampler=DDIM(), steps=6, batch_size=4, capture="loop")
