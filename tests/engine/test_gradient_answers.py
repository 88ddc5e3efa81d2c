"""Networks whose answer is a gradient, in inference mode and out of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.engine import graphs
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser, gradient_of
from trilemma.testing import check_denoiser
from trilemma.testing.exact_processes import AngleProcess


class Energy(Denoiser):
    """F(z) = Σ (c + 1) cos(w z), of which the answer is ∇F."""

    gradient = True
    fullgraph = False

    def __init__(self) -> None:
        super().__init__(AngleProcess(), "score", (1, 3, 3), [ClassCondition("class", 3, null=3)])
        self.width = nn.Parameter(torch.tensor(0.7))
        self.classes = nn.Embedding.from_pretrained(1 + torch.arange(4.0).view(4, 1), freeze=False)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        factor = self.classes(cond["class"])
        return gradient_of(lambda y: (factor * (self.width * y).cos().flatten(1)).sum(1), z)


class Explicit(Energy):
    """The same without autograd."""

    gradient = False

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        factor = self.classes(cond["class"]).view(-1, 1, 1, 1)
        return -factor * (self.width * z).sin() * self.width


REQUEST: dict[str, Any] = {"sampler": "euler-maruyama:grid=leading", "steps": 5, "cond": {"class": [0, 1]}}


@pytest.mark.parametrize("guidance", [None, "cfg:scale=2"])
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_an_energy_draws_as_its_gradient_in_closed_form(context: Any, guidance: str | None) -> None:
    energy, explicit = Energy(), Explicit()
    with context():
        found = trilemma.sample(energy, 4, guidance=guidance, **REQUEST).samples
        expected = trilemma.sample(explicit, 4, guidance=guidance, **REQUEST).samples
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_sampler_with_a_loop_of_its_own() -> None:
    request = REQUEST | {"sampler": "rk:tolerance=1e-4"}
    found = trilemma.sample(Energy(), 2, **request).samples
    torch.testing.assert_close(found, trilemma.sample(Explicit(), 2, **request).samples, rtol=1e-4, atol=1e-4)


def test_it_can_be_trained_through() -> None:
    """The gradient of a loss of ∇F, in the parameters and in the state."""
    z, t, label = torch.randn(2, 1, 3, 3), torch.ones(2), torch.tensor([0, 2])
    slopes = []
    for network in (Energy(), Explicit()):
        state = z.clone().requires_grad_()
        network(state, t, **{"class": label}).square().sum().backward()
        assert state.grad is not None
        assert network.width.grad is not None
        slopes.append((state.grad, network.width.grad))
    torch.testing.assert_close(slopes[0], slopes[1])


def test_outside_of_training_no_graph_is_kept() -> None:
    with torch.no_grad():
        answer = Energy()(torch.randn(2, 1, 3, 3), torch.ones(2), **{"class": torch.tensor([0, 1])})
    assert not answer.requires_grad


def test_it_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "why_impossible", lambda loop: "")
    drawn = trilemma.sample(Energy(), 2, capture="loop", **REQUEST)
    assert "answer is a gradient" in drawn.provenance["capture"]["passed_over"]["loop"]


def test_the_kit_passes_it() -> None:
    assert "failed" not in {record.status for record in check_denoiser(Energy())}
