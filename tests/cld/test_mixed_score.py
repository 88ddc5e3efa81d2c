"""The mixed score."""

from __future__ import annotations

import pytest
import torch

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma_plugins.cld.denoiser import MixedScoreDenoiser
from trilemma_plugins.cld.process import CLD

SMALL = {"network": "unet", "channels": [16, 16], "blocks": 1}


def made(process=None, **options) -> MixedScoreDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixedScoreDenoiser(process or CLD(), shape=(1, 8, 8), **{**SMALL, **options}).eval()


@pytest.mark.parametrize("process", [CLD(), CLD(schedule="linear")], ids=repr)
def test_a_network_that_says_nothing_gives_the_score_of_the_velocity_alone(process):
    """s = −v/Σ_vv: a new network's last layer is zero."""
    model = made(process)
    t = torch.tensor([0.001, 0.0123, 0.3, 0.77, 1.0], dtype=torch.float64)
    z = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    answer = model(z, t.float())
    sigma, variance = process.last_component(t)[2], process.moments(t)[1][:, 1, 1]
    expected = (sigma / variance).float().view(-1, 1, 1, 1) * z[:, 1:]
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)


def test_the_network_is_added_to_it():
    model = made()
    t, z = torch.full((3,), 0.4), torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    before = model(z, t)
    torch.nn.init.ones_(model.network.outlet.bias)
    torch.testing.assert_close(model(z, t), before + 1)


def test_it_runs_in_bfloat16():
    t, z = torch.full((3,), 0.4), torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    answer = made().bfloat16()(z.bfloat16(), t)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), made()(z, t), rtol=0.02, atol=0.02)


def test_the_table_is_no_weight():
    assert not [name for name in made().state_dict() if "ratio" in name]


def test_what_it_refuses():
    with pytest.raises(UsageError, match="two components"):
        made(lookup.process("vp-continuous"))
    with pytest.raises(UsageError, match="give eps"):
        made(parameterization="x0")
