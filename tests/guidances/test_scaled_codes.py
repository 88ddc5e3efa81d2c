"""Classifier guidance of a latent model, whose states are codes in units that the autoencoder chose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trilemma
from support.linear_codes import LinearCodes
from trilemma.interfaces.data_view import Latent
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.guidances.classifier import Classifier

# Codes c ~ N(m_y, s²) of two classes, as the encoder makes them, and the units μ and u of the normalised (c − μ)/u.
MEANS, VARIANCE, SHIFT, UNIT = (5.0, 3.4), 0.09, 4.0, 2.5
PROCESS = DiscreteVP("cosine")


class Posterior(nn.Module):
    """log p(y | z_t) of noised codes in the units of the model, the law of the codes given in those of the encoder."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = PROCESS.scales(t, z)
        variance = alpha.square() * VARIANCE / UNIT**2 + sigma.square()
        means = [alpha * (mean - SHIFT) / UNIT for mean in MEANS]
        return torch.stack([-((z - m).square() / variance).flatten(1).sum(1) / 2 for m in means], 1)


def latent(means: tuple[float, ...]) -> GaussianDenoiser:
    coder = LinearCodes((1, 2, 2)).eval().requires_grad_(False)
    coder.code_mean.fill_(SHIFT)
    coder.code_deviation.fill_(UNIT)
    normalised = [(mean - SHIFT) / UNIT for mean in means]
    model = GaussianDenoiser(PROCESS, normalised, VARIANCE / UNIT**2, "eps", (2, 1, 1))
    model.view = Latent(coder, (1, 2, 2))
    return model


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_guided_images_are_those_of_the_class(eta: float) -> None:
    """ε̂ of the whole mixture, shifted by −σ ∇ log p(y|z_t), is that of the class: in images, to rounding."""
    settings = {"sampler": DDIM(eta=eta), "steps": 25, "dtype": torch.float64}
    mixture = both()
    guided = trilemma.sample(mixture, 6, guidance=Classifier(Posterior(), label=[0, 1]), **settings)
    classes = trilemma.sample(latent((*MEANS, SHIFT)), 6, cond={"class": [0, 1]}, **settings)
    assert guided.samples.shape == (6, 1, 2, 2)
    torch.testing.assert_close(guided.samples, classes.samples, rtol=0, atol=1e-5)
    # The codes of the classes are apart, so that another unit of the gradient would be seen.
    codes = mixture.view.autoencoder.encode(guided.samples.float())[0].mean((1, 2, 3))
    assert codes.tolist() == pytest.approx([MEANS[i % 2] for i in range(6)], abs=4 * VARIANCE**0.5)


def both() -> GaussianMixtureDenoiser:
    """The exact unconditional denoiser of both classes together."""
    like = latent(MEANS)
    made = GaussianMixtureDenoiser(
        PROCESS, [(m - SHIFT) / UNIT for m in MEANS], VARIANCE / UNIT**2, None, "eps", (2, 1, 1)
    )
    made.view = like.view
    return made
