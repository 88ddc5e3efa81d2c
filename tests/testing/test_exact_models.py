"""The exact models: parameterizations agree, scores are gradients, flows carry one marginal to another."""

from __future__ import annotations

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.testing.flow import integrate, reference_flow
from trilemma.testing.local import LOCAL
from trilemma.testing.mixture import GaussianMixtureDenoiser, point_mass

TIME = torch.tensor([0.5, 0.5, 0.2], dtype=torch.float64)


def states(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("labels", [None, torch.tensor([0, 2, 3])])
def test_the_score_is_the_gradient_of_the_log_density(process, labels):
    model = GaussianMixtureDenoiser(process, shape=(1, 2, 1))
    alpha, sigma = process.alpha(TIME), process.sigma(TIME)
    z = states(1, 2, 1).requires_grad_()
    V = alpha.square() * model.variances[:, None] + sigma.square()
    distance = (z - alpha.view(-1, 1, 1, 1) * model.means[:, None]).square().flatten(2).sum(-1)
    log = model.weights.log()[:, None] - distance / (2 * V) - V.log()  # two dimensions
    if labels is not None:
        keep = (labels == torch.arange(3)[:, None]) | (labels == 3)
        log = log.masked_fill(~keep, -torch.inf)
    (gradient,) = torch.autograd.grad(log.logsumexp(0).sum(), z)
    found = model.predict(z.detach(), alpha, sigma, "score", labels)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
def test_every_parameterization_says_the_same(process):
    z = states(1, 2, 1)
    read = {
        name: GaussianMixtureDenoiser(process, parameterization=name, shape=(1, 2, 1))(z, TIME)
        for name in ("x0", "eps", "v", "score", "flow")
    }
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in (process.alpha(TIME), process.sigma(TIME)))
    torch.testing.assert_close(alpha * read["x0"] + sigma * read["eps"], z)
    torch.testing.assert_close(read["v"], alpha * read["eps"] - sigma * read["x0"])
    torch.testing.assert_close(read["flow"], read["eps"] - read["x0"])
    torch.testing.assert_close(read["score"], -read["eps"] / sigma)


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
def test_the_flow_of_a_gaussian_is_the_known_one(process):
    model = GaussianMixtureDenoiser(process, (0.3,), 0.25)
    z = states(1, 1, 1)
    for end in (0.2, 0.0):
        alpha, sigma = process.levels(torch.tensor([0.9, end], dtype=torch.float64))
        scale = (alpha.square() * 0.25 + sigma.square()).sqrt()
        exact = alpha[1] * 0.3 + (z - alpha[0] * 0.3) * scale[1] / scale[0]
        torch.testing.assert_close(reference_flow(model, z, 0.9, end), exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
def test_the_flow_of_a_mixture_keeps_the_mass_below(process):
    """In one dimension the flow is monotone, so P(Z_t < z_t) is constant along it."""
    model = GaussianMixtureDenoiser(process)

    def below(z: torch.Tensor, time: float) -> torch.Tensor:
        alpha, sigma = process.levels(torch.tensor(time, dtype=torch.float64))
        scale = (alpha.square() * model.variances + sigma.square()).sqrt()
        normal = torch.special.ndtr((z.view(-1, 1) - alpha * model.means.view(1, -1)) / scale)
        return (model.weights * normal).sum(1)

    z = states(1, 1, 1)
    for end in (0.3, 0.0):
        ended = reference_flow(model, z, 0.9, end)
        torch.testing.assert_close(below(ended, end), below(z, 0.9), rtol=1e-10, atol=1e-11)


def test_the_integrator_is_exact_to_rounding():
    found = integrate(lambda u, y: -y * u, torch.ones(1, dtype=torch.float64), 0.0, 2.0)
    assert float(found) == pytest.approx(torch.tensor(-2.0).double().exp().item(), abs=1e-13)


def test_a_point_mass_answers_with_its_point():
    model = point_mass(LOCAL[0], 0.7, shape=(2, 1, 1))
    torch.testing.assert_close(model(states(2, 1, 1), TIME), torch.full((3, 2, 1, 1), 0.7).double())


def test_what_is_no_mixture_is_refused():
    with pytest.raises(UsageError, match="no mixture"):
        GaussianMixtureDenoiser(LOCAL[0], (0.0, 1.0), (0.1,))
