"""Likelihoods of images through codes: a linear-Gaussian model, whose density is known."""

from __future__ import annotations

import math

import pytest
import torch

from support.linear_codes import LinearCodes
from support.linear_gaussian import LinearGaussian
from trilemma.errors import UsageError
from trilemma.interfaces.data_view import Latent
from trilemma.testing import GaussianDenoiser
from trilemma_plugins.ddpm.geometric import GeometricVP
from trilemma_plugins.vdm.latent_likelihood import latent_bound_terms, latent_flow_terms
from trilemma_plugins.vdm.metric import BitsPerDimension

# Next to no noise at t = 0, so that the prior of the codes is N(0, I) there.
PROCESS = GeometricVP(1e-9, 1 - 1e-9)


def model(coder: LinearGaussian | LinearCodes, process: GeometricVP = PROCESS) -> GaussianDenoiser:
    """The exact denoiser of normal codes."""
    made = GaussianDenoiser(process, 0.0, 1.0, "eps", (2, 1, 1)).double().eval()
    made.view = Latent(coder.eval(), (1, 2, 2))
    return made


def images(count: int) -> torch.Tensor:
    return 0.8 * torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_flow_of_the_exact_posterior_is_the_density(scaled: bool) -> None:
    """For every draw of the codes; of normalised codes, too, where the autoencoder is the same but for units."""
    coder, x = LinearGaussian(), images(16)
    if scaled:
        # Codes of the deviation 3 around 5, which the autoencoder normalises.
        coder.code_mean.fill_(5.0)
        coder.code_deviation.fill_(3.0)
        inner_encode, inner_decode = coder.encode, coder.decode
        coder.encode = lambda image: (5 + 3 * inner_encode(image)[0], inner_encode(image)[1] + math.log(9))
        coder.decode = lambda code: inner_decode((code - 5) / 3)
    terms = latent_flow_terms(model(coder), coder, x, {}, generator(), tolerance=1e-7)
    found = -sum(terms.values())
    torch.testing.assert_close(found, LinearGaussian().log_density(x), rtol=1e-4, atol=0)


def test_the_bound_of_the_exact_posterior_is_the_density_in_the_mean() -> None:
    coder, x, count = LinearGaussian().requires_grad_(False), images(8), 20_000
    many = x.repeat(count, 1, 1, 1)
    # A shorter way from data to noise has less variance.
    shorter = model(coder, GeometricVP(1e-3, 0.999))
    terms = latent_bound_terms(shorter, coder, many, {}, generator())
    nats = sum(terms.values()).view(count, 8)
    interval = 4 * nats.std(0) / math.sqrt(count)
    assert (interval < 0.4).all()
    # What the first noise changes of the prior is a thousandth.
    assert ((nats.mean(0) + coder.log_density(x)).abs() < interval + 2e-3 * nats.mean(0).abs()).all()


def test_another_posterior_is_paid_for() -> None:
    """By KL(q ‖ p(c|x)) of variances twice as large: ½ (2 − 1 − log 2) a number of the code, in flow and bound."""
    wide = LinearGaussian(widened=2.0).requires_grad_(False)
    exact, x = LinearGaussian().requires_grad_(False), images(4).repeat(2000, 1, 1, 1)
    terms = latent_flow_terms(model(wide), wide, x, {}, generator(), tolerance=1e-4)
    paid = sum(terms.values()) + exact.log_density(x)
    expected = 2 * (2 - 1 - math.log(2)) / 2
    assert float(paid.mean()) == pytest.approx(expected, abs=4 * float(paid.std()) / math.sqrt(len(x)))


def test_bpd_names_its_estimate_and_its_terms() -> None:
    coder, x = LinearGaussian(), images(64)
    bound = BitsPerDimension(draws=4).measure(model(coder), x, None, 32, 0)
    flow = BitsPerDimension(method="flow", tolerance=1e-6).measure(model(coder), x, None, 32, 0)
    beside = ["interval", "images", "estimate"]
    assert list(bound) == ["bpd", "prior", "diffusion", "entropy", "reconstruction", *beside]
    assert list(flow) == ["bpd", "divergence", "reconstruction", *beside]
    assert (bound["estimate"], flow["estimate"]) == ("bound", "flow")
    assert bound["bpd"] == pytest.approx(sum(bound[name] for name in list(bound)[1:5]))
    exact = -float(coder.log_density(x).mean()) / (4 * math.log(2))
    assert flow["bpd"] == pytest.approx(exact, rel=1e-4)


def test_latent_models_that_have_no_likelihood_are_refused(one_line) -> None:
    coder = LinearCodes((1, 2, 2)).double()
    with pytest.raises(UsageError, match="no likelihood of pixels") as caught:
        BitsPerDimension().measure(model(coder), images(4), None, 4, 0)
    one_line(caught.value)
    flow = BitsPerDimension(method="flow", dequantization="uniform")
    with pytest.raises(UsageError, match="dequantizes nothing"):
        flow.measure(model(LinearGaussian()), images(4), None, 4, 0)
    with pytest.raises(UsageError, match=r"the model's \(1, 2, 2\)"):
        BitsPerDimension().measure(model(LinearGaussian()), torch.zeros(4, 1, 4, 4), None, 4, 0)
