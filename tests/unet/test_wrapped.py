"""Networks around the U-Net hand on what it draws for itself and where a row goes."""

from __future__ import annotations

import pytest
import torch

import trilemma

AROUND = {
    "edm": ("edm", "x0", "edm"),
    "vdm": ("vdm", "eps", "vp-continuous"),
    "cld": ("cld", "eps", "cld"),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_network_around_it_draws_and_is_told_the_same(name):
    denoiser, parameterization, process = AROUND[name]
    net = trilemma.denoiser(
        denoiser,
        process=trilemma.process(process),
        parameterization=parameterization,
        shape=(1, 8, 8),
        channels=[8],
        groups=4,
        blocks=1,
        latent=3,
        takes_to=True,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    # The Fourier features of vdm make much of the last bits of float32.
    net.double().eval().requires_grad_(False)
    options = {"steps": 2, "seed": 3}
    both = trilemma.sample(net, 2, **options).samples
    alone = trilemma.sample(net, 2, batch_size=1, **options).samples
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-6)

    z = torch.randn(1, net.process.components, 8, 8, generator=generator, dtype=torch.float64)
    t, latent, to = torch.full((1,), 0.5), torch.zeros(1, 3), torch.full((1,), 0.1)
    answer = net(z, t, latent=latent, to=to)
    for other in ({"latent": latent + 1, "to": to}, {"latent": latent, "to": 4 * to}):
        assert (net(z, t, **other) - answer).abs().max() > 1e-5
