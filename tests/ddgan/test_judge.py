"""A discriminator that sees through a trained denoiser, and the noise level at which it sees clean states."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.interfaces.update import Step
from trilemma.models import beside
from trilemma_plugins.ddgan.objective import DISCRIMINATOR, DenoisingGAN
from trilemma_plugins.ddgan.posterior import later
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.unet.unet import UNet

COSINE = DiscreteVP("cosine")


def network(latent: int = 0) -> UNet:
    torch.manual_seed(latent)
    made = UNet(COSINE, "v", (1, 8, 8), channels=(8, 16), blocks=1, patch=2, groups=4, latent=latent)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made


@pytest.fixture
def seen(monkeypatch):
    """Returns the states and times that the judge is shown, of the data and of what is drawn, and the data."""
    monkeypatch.setattr(beside, "load", lambda name: network())

    def found(finest: float) -> tuple:
        objective = DenoisingGAN(steps=2, judge="any", layers=("down.0.0", "up.1.0"), finest=finest)
        model, shown = network(latent=4), []
        parts = objective.parts(model)
        parts[DISCRIMINATOR].register_forward_pre_hook(lambda _, given: shown.append(given[:2]))
        x0 = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        step = Step(model, model, parts, x0, {}, {}, torch.Generator().manual_seed(3))
        objective.update_loss(objective.updates()[0], step)
        return (*shown, x0)

    return found


def test_clean_states_are_shown_noised_to_the_finest_level(seen):
    ((true, _), (s, _)), ((_, _), (of_drawn, _)), x0 = seen(2.0)
    assert torch.equal(s, of_drawn)
    sigma2 = 1 / (1 + math.exp(2.0))
    clean = s < 0.4
    assert 90 < int(clean.sum()) < 166
    torch.testing.assert_close(
        COSINE.alpha(s[clean].double()).square(), torch.full((int(clean.sum()),), 1 - sigma2).double()
    )
    noise = (true[clean].detach() - (1 - sigma2) ** 0.5 * x0[clean]) / sigma2**0.5
    assert float(noise.std()) == pytest.approx(1, rel=0.03)
    assert abs(float((noise * x0[clean]).mean())) < 0.03


def test_noisier_states_are_shown_as_they_are(seen):
    """At time 0.5 of a grid of two steps log(α²/σ²) is 0."""
    low, high = seen(2.0), seen(3.0)
    noisy = low[0][1][0] >= 0.5
    assert torch.equal(noisy, high[0][1][0] >= 0.5)
    assert torch.equal(low[0][0][0][noisy], high[0][0][0][noisy])
    assert set(low[0][1][0][noisy].tolist()) == {0.5}


def test_a_state_noised_to_its_own_level_is_itself():
    z, s = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(later(COSINE, z, s, s, torch.full_like(z, math.nan).nan_to_num(9.0)), z)


def test_a_level_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="no log-SNR"):
        DenoisingGAN(finest=math.inf)


def test_the_generator_learns_after_the_discriminator_and_more_seldom():
    of_judge, of_generator = DenoisingGAN(since=100, every=3).updates()
    assert all(of_judge.due(step) for step in range(200))
    assert [step for step in range(110) if of_generator.due(step)] == [102, 105, 108]
    assert [update.due(0) for update in DenoisingGAN().updates()] == [True, True]
