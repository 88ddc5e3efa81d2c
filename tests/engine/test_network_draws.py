"""A network that draws for itself: its normals are keyed, whoever runs the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine import graphs
from trilemma.engine.noise import InjectedNoise, keyed_normal
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.sampler import Sampler
from trilemma.numerics.normal import DRAW
from trilemma.testing.exact_processes import AngleProcess
from trilemma_plugins.guidances.moment_matching import MomentMatching


class Generator(Denoiser):
    """x̂₀ from the state, its class and two latents, as the generator of a denoising diffusion GAN has one."""

    draws: Mapping[str, tuple[int, ...]] = {"latent": (4,), "texture": (2, 3, 3)}

    def __init__(self) -> None:
        super().__init__(AngleProcess(), "x0", (2, 3, 3), [ClassCondition("class", 3, null=3)])
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        self.seen.append({name: entry.clone() for name, entry in told.items()})
        style = (told["latent"].mean(1) + told["class"]).view(-1, 1, 1, 1).to(z.dtype)
        return 0.3 * self.weight * z + style + 0.1 * told["texture"]


def model() -> Generator:
    return Generator().eval().requires_grad_(False)


REQUEST: dict[str, Any] = {"sampler": "ddim:eta=1", "steps": 4, "seed": 5, "cond": {"class": [0, 2]}}
GUIDED = REQUEST | {"guidance": "cfg:scale=2"}


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["plain", "guided"])
def test_samples_are_keyed_alone_in_a_batch_and_in_any_chunks(request_: dict[str, Any]) -> None:
    whole = trilemma.sample(model(), 7, **request_).samples
    assert torch.equal(whole, trilemma.sample(model(), 7, batch_size=3, **request_).samples)
    assert torch.equal(
        whole[5:6], trilemma.sample(model(), indices=[5], **request_).samples[:1] + 0
    )  # class 0
    other = trilemma.sample(model(), 7, **request_ | {"seed": 6}).samples
    assert not torch.equal(whole, other)


def test_the_normals_are_those_of_the_key_and_alike_for_all_branches() -> None:
    network = model()
    trilemma.sample(network, 3, **GUIDED)
    indices = torch.arange(3)
    for row, told in enumerate(network.seen):
        for place, (name, shape) in enumerate(network.draws.items()):
            expected = keyed_normal(5, indices, row, shape, DRAW + place)
            first, second = told[name].chunk(2)
            assert torch.equal(first, expected)
            assert torch.equal(second, expected)
    assert len(network.seen) == 4


def test_they_are_in_the_dtype_of_the_network() -> None:
    network = model().to(torch.bfloat16)
    trilemma.sample(network, 2, **REQUEST, dtype=torch.float32)
    assert {entry["latent"].dtype for entry in network.seen} == {torch.bfloat16}


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["plain", "guided"])
def test_stepped_from_outside(request_: dict[str, Any]) -> None:
    network = model()
    stepper = trilemma.stepper(network, 5, **request_)
    while not stepper.done:
        states = stepper.states
        stepper.step(network(states, torch.full((len(states),), stepper.time), **stepper.cond))
    assert torch.equal(stepper.samples, trilemma.sample(network, 5, **request_).samples)


class OwnLoop(Sampler):
    """DDIM's step in a loop of its own."""

    order = 1
    deterministic = True

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        alpha, sigma = (level.tolist() for level in predict.denoiser.process.alpha_sigma(times))
        for n, t in enumerate(times[:-1].tolist()):
            x0 = predict(z, t, "x0")
            z = alpha[n + 1] * x0 + sigma[n + 1] * (z - alpha[n] * x0) / sigma[n]
        return z


def test_a_sampler_with_a_loop_of_its_own_draws_by_the_number_of_its_call() -> None:
    network, request = model(), {**GUIDED, "sampler": OwnLoop()}
    whole = trilemma.sample(network, 7, **request).samples
    assert torch.equal(network.seen[2]["latent"][:7], keyed_normal(5, torch.arange(7), 2, (4,), DRAW))
    assert torch.equal(whole, trilemma.sample(network, 7, batch_size=2, **request).samples)


class Unrecorded:
    """In place of graphs: what they would launch."""

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, body: Callable[[], None], warm_up: Callable[[], None]) -> Callable[[], None]:
        warm_up()
        return body


@pytest.mark.parametrize("mode", ["loop", "step"])
def test_the_form_that_graphs_hold_draws_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "reference")
    monkeypatch.setattr(graphs, "Recorder", Unrecorded)
    monkeypatch.setattr(graphs, "why_impossible", lambda loop: "")
    request = GUIDED | {"batch_size": 2}
    expected = trilemma.sample(model(), 6, **request, capture="off")
    drawn = trilemma.sample(model(), 6, **request, capture=mode)
    assert drawn.provenance["capture"]["ran"] == mode
    assert torch.equal(drawn.samples, expected.samples)


def test_draws_are_injected_in_the_order_in_which_they_are_declared() -> None:
    prior, steps = torch.randn(2, 2, 3, 3), torch.randn(4, 2, 2, 3, 3)
    latents, textures = torch.randn(4, 2, 4), torch.randn(4, 2, 2, 3, 3)
    network = model()
    noise = InjectedNoise(prior, steps, draws=[latents, textures])
    trilemma.sample(network, 2, **REQUEST, noise=noise)
    assert torch.equal(torch.stack([told["latent"] for told in network.seen]), latents)
    assert torch.equal(torch.stack([told["texture"] for told in network.seen]), textures)
    with pytest.raises(
        UsageError, match=r"for the network's own draw 2 in row 1; give InjectedNoise\(draws="
    ):
        trilemma.sample(network, 2, **REQUEST, noise=InjectedNoise(prior, steps, draws=[latents]))


def test_refusals() -> None:
    image = torch.zeros(1, 2, 3, 3)
    with pytest.raises(UsageError, match="draws noise of its own at every evaluation, so that no latent"):
        trilemma.invert(model(), image, sampler="ddim")
    guidance = MomentMatching(known=image, mask=torch.ones(1, 1, 3, 3))
    with pytest.raises(UsageError, match=r"evaluates the network by itself.* told latent, texture too"):
        trilemma.sample(model(), guidance=guidance, steps=2, sampler="ddim")

    class Clash(Generator):
        draws: Mapping[str, tuple[int, ...]] = {"class": (4,)}

    with pytest.raises(UsageError, match="draws 'class', the name of something else"):
        trilemma.sample(Clash(), steps=2, sampler="ddim")
