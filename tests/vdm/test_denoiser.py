"""The network with Fourier features: the kit's checks, its clock, its features, one step of training."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.testing import check_denoiser
from trilemma_plugins.vdm.denoiser import FourierDenoiser
from trilemma_plugins.vdm.objective import VariationalBound
from trilemma_plugins.vdm.process import VDM

SMALL = {"channels": [8], "blocks": 1, "groups": 4, "classes": 3}


class Listener(Denoiser):
    """A network that keeps what it is shown."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.seen = z, t
        return torch.full_like(z, 0.5)


def made(process: VDM, **options: object) -> FourierDenoiser:
    torch.manual_seed(0)
    network = FourierDenoiser(process, "eps", (1, 8, 8), **{**SMALL, **options})  # type: ignore[arg-type]
    torch.nn.init.normal_(network.network.outlet.weight, std=0.02)
    return network


def test_the_kit_finds_nothing() -> None:
    """Without the features: sin 2⁸πz of a z in bfloat16 is another number."""
    for record in check_denoiser(made(VDM("learned", width=8), frequencies=())):
        assert record.status in ("passed", "skipped"), record


def test_what_the_network_is_shown() -> None:
    process = VDM("cosine")
    network = made(process)
    network.network = Listener(process, "eps", (5, 8, 8))
    z, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.5, 1.0])
    answer = network(z, t)
    state, clock = network.network.seen
    torch.testing.assert_close(answer, z + 0.5)
    torch.testing.assert_close(state[:, :1], z)
    torch.testing.assert_close(state[:, 1:2], (2**7 * math.pi * z).sin())
    torch.testing.assert_close(state[:, 4:5], (2**8 * math.pi * z).cos())
    torch.testing.assert_close(clock, ((process.gamma(t) + 13.3) / 18.3).float())


def test_the_clock_does_not_move_with_the_ends() -> None:
    process = VDM(endpoints=True)
    network = made(process)
    with torch.no_grad():
        process.ends += 1.83
    torch.testing.assert_close(network._clock(torch.tensor([0.0, 0.5])), torch.tensor([0.1, 0.6]))


def test_other_processes_keep_their_time() -> None:
    network = lookup.denoiser(
        "vdm", process=lookup.process("flow"), parameterization="v", shape=(1, 8, 8), **SMALL
    )
    t = torch.tensor([0.3, 0.7])
    assert torch.equal(network._clock(t), t)
    z = torch.ones(2, 1, 8, 8)
    assert network(z, t, **{"class": torch.tensor([0, 3])}).shape == z.shape


def test_one_step_trains_network_and_schedule() -> None:
    """By the bound, and saved without a tensor twice."""
    network = made(VDM("learned", width=8))
    x = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * (2 / 255) - 1
    loss = VariationalBound().loss(
        network, network, x, {"class": torch.tensor([0, 1, 2, 3])}, torch.Generator().manual_seed(0)
    )
    loss.backward()
    assert bool(loss.isfinite())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    assert bool((network.process.ends.grad != 0).all())
    save(network.state_dict())


@pytest.mark.parametrize("frequencies", [(7, 10**12), (-1,), (25,), (1.5,), (True,)])
def test_frequencies_that_float32_cannot_show_are_refused(frequencies) -> None:
    with pytest.raises(UsageError, match="must be integers from 0 to 24"):
        FourierDenoiser(VDM(), "eps", (1, 4, 4), frequencies=frequencies)
