"""States that a callback is handed, and all that sampling returns, are tensors to compute with, gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP

MODEL = GaussianDenoiser(DiscreteVP(T=50))
KNOWN = {"known": torch.zeros(1, *MODEL.shape), "mask": torch.ones(1, *MODEL.shape)}


def use(state: Tensor) -> None:
    """Does with a tensor what cannot be done with one of inference mode."""
    assert not state.is_inference()
    copy = state.clone()
    copy.mul_(2)
    copy[:1] = 3.0
    leaf = state.clone().requires_grad_()
    weight = torch.ones((), requires_grad=True)
    ((leaf * weight).square().sum() + leaf.exp().sum()).backward()
    assert leaf.grad is not None
    assert weight.grad is not None
    held = state * weight
    held.sum().backward()
    detached = state.detach().clone()
    torch.testing.assert_close(detached, state, rtol=0, atol=0)


SETTINGS = {
    "plan": {"sampler": "ddim"},
    "noisy plan": {"sampler": "ddpm"},
    "history": {"sampler": "dpmpp-2m"},
    "steps of its own": {"sampler": "rk"},
    "other dtype": {"sampler": "ddim", "dtype": torch.float64},
    "deterministic": {"sampler": "ddim", "deterministic": True},
    "known region": {"sampler": "ddim", **KNOWN},
    "start": {"sampler": "ddim", "start": torch.zeros(3, *MODEL.shape)},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_states_of_a_callback(settings):
    seen = []

    def callback(step: int, steps: int, t: float, state: Tensor) -> None:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        use(state)
        seen.append(state.clone())

    watched = trilemma.sample(MODEL, 3, steps=4, callback=callback, **settings)
    assert seen
    assert torch.equal(watched.samples, trilemma.sample(MODEL, 3, steps=4, **settings).samples)
    kept = seen[-1][: len(watched.samples), : MODEL.shape[0]]
    assert torch.equal(kept, watched.samples)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_samples_trajectories_and_chunks(settings):
    drawn = trilemma.sample(MODEL, 3, steps=4, trajectory=True, **settings)
    use(drawn.samples)
    use(drawn.trajectory)
    chunks = trilemma.sample_chunks(MODEL, 3, steps=4, batch_size=2, trajectory=True, **settings)
    for _, samples in chunks:
        use(samples)
        use(chunks.trajectory)


def test_latents_and_callbacks_of_an_inversion():
    images = trilemma.sample(MODEL, 2, steps=4, sampler=DDIM()).samples
    latent = trilemma.invert(MODEL, images, steps=4, callback=lambda *given: use(given[-1]))
    use(latent.samples)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callback_runs_in_the_modes_of_the_call(mode):
    found = []

    def callback(*given: object) -> None:
        found.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    with mode():
        expected = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        trilemma.sample(MODEL, 1, steps=2, callback=callback)
    assert set(found) == {expected}


def test_no_state_is_copied_without_a_callback(monkeypatch):
    copies = []
    real = Tensor.clone
    monkeypatch.setattr(Tensor, "clone", lambda self, **kwargs: copies.append(1) or real(self, **kwargs))
    counts = []
    for steps in (2, 9):
        copies.clear()
        trilemma.sample(MODEL, 2, steps=steps)
        counts.append(len(copies))
    assert counts[0] == counts[1]
