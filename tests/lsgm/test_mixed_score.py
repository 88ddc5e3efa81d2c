"""The mixed score is exact for normal codes where the network says nothing, and is the network's where s = 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import trilemma
from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.lsgm.denoiser import MixedScoreDenoiser

SMALL = {"network": "unet", "channels": [16], "blocks": 1, "groups": 4}
TIMES = torch.tensor([0.001, 0.0123, 0.3, 0.77, 1.0], dtype=torch.float64)


def made(spec: str = "vp-geometric", parameterization: str = "eps", **options: Any) -> MixedScoreDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        process = lookup.process(spec)
        return MixedScoreDenoiser(process, parameterization, (2, 4, 4), **{**SMALL, **options}).eval()


def state(count: int = len(TIMES)) -> torch.Tensor:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", ["vp-geometric", "vp-continuous", "vp:schedule=cosine,T=1000", "sub-vp"])
@pytest.mark.parametrize("parameterization", ["eps", "x0", "v", "score"])
def test_a_new_network_with_little_share_answers_for_normal_codes(spec: str, parameterization: str) -> None:
    """Its last layer is zero, so that 1 − s is all that is left of the exact answer."""
    model = made(spec, parameterization, logit=-30.0)
    exact = GaussianDenoiser(model.process, 0.0, 1.0, parameterization, (2, 4, 4))
    z = state()
    expected = exact(z.double(), TIMES).float()
    torch.testing.assert_close(model(z, TIMES.float()), expected, rtol=1e-4, atol=1e-5)


def test_each_channel_has_its_share() -> None:
    model, z, t = made(), state(3), torch.full((3,), 0.4)
    torch.nn.init.ones_(model.network.outlet.bias)
    with torch.no_grad():
        model.logit.copy_(torch.tensor([30.0, 0.0]))
    sigma = float(model.process.sigma(torch.tensor(0.4, dtype=torch.float64)))
    answer = model(z, t)
    torch.testing.assert_close(answer[:, 0], torch.ones_like(z[:, 0]))
    torch.testing.assert_close(answer[:, 1], (sigma * z[:, 1] + 1) / 2)
    assert model.share.tolist() == pytest.approx([1.0, 0.5])


def test_any_sampler_draws_normal_codes_of_it() -> None:
    """A plain denoiser to the engine: each sampler draws what it draws of the exact denoiser."""
    model = made("vp-continuous", logit=-30.0)
    exact = GaussianDenoiser(model.process, 0.0, 1.0, "eps", (2, 4, 4))
    for sampler in ("ddim:eta=1", "dpmpp-2m", "rk"):
        steps = {} if sampler == "rk" else {"steps": 10}
        drawn, expected = (trilemma.sample(entry, 3, sampler=sampler, **steps) for entry in (model, exact))
        torch.testing.assert_close(drawn.samples, expected.samples.float(), rtol=0, atol=1e-3)


def test_classes_and_draws_are_those_of_the_network() -> None:
    assert list(made(classes=3).conditions) == ["class"]
    assert "logit" in made().state_dict()
    assert not [name for name in made().state_dict() if name.startswith("normal")]


def test_a_process_with_a_velocity_is_refused() -> None:
    with pytest.raises(UsageError, match="one component"):
        made("cld")
