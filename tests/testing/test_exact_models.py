"""The exact models: parameterizations agree, scores are gradients, flows carry one marginal to another."""

from __future__ import annotations

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.testing import classifier_free_target, classifier_target, run_checks
from trilemma.testing.exact_processes import PhaseProcess
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
        alpha, sigma = process.alpha_sigma(torch.tensor([0.9, end], dtype=torch.float64))
        scale = (alpha.square() * 0.25 + sigma.square()).sqrt()
        exact = alpha[1] * 0.3 + (z - alpha[0] * 0.3) * scale[1] / scale[0]
        torch.testing.assert_close(reference_flow(model, z, 0.9, end), exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
def test_the_flow_of_a_mixture_keeps_the_mass_below(process):
    """In one dimension the flow is monotone, so P(Z_t < z_t) is constant along it."""
    model = GaussianMixtureDenoiser(process)

    def below(z: torch.Tensor, time: float) -> torch.Tensor:
        alpha, sigma = process.alpha_sigma(torch.tensor(time, dtype=torch.float64))
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


PHASE = PhaseProcess()
DATA = [
    {"means": (0.3,), "variances": 0.25},
    {"means": (0.7,), "variances": 0.0},
    {"means": (-1.0, 0.2, 1.1), "variances": (0.04, 0.12, 0.06)},
]


def log_density(model, z, t):
    """Of the state, from the law of (x₀, z) by torch.distributions."""
    mean, cov = model.process.moments(t)
    total = []
    for m, s, w in zip(model.means, model.variances, model.weights, strict=True):
        V = s * mean[:, :, None] * mean[:, None, :] + cov
        law = torch.distributions.MultivariateNormal((mean * m.flatten()[:1]), V)
        total.append(w.log() + law.log_prob(z.reshape(len(z), -1, m.numel()).movedim(-1, 0)).sum(0))
    return torch.stack(total).logsumexp(0)


@pytest.mark.parametrize("data", DATA, ids=("gaussian", "point", "mixture"))
def test_in_phase_space_the_score_is_the_slope_of_the_log_density(data):
    model = GaussianMixtureDenoiser(PHASE, **data, shape=(2, 1, 1))
    z, h = states(4, 1, 1), 1e-5
    score = model.score(z, TIME)
    for entry in range(4):
        step = torch.zeros_like(z)
        step[:, entry] = h
        slope = (log_density(model, z + step, TIME) - log_density(model, z - step, TIME)) / (2 * h)
        torch.testing.assert_close(score[:, entry, 0, 0], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("data", DATA, ids=("gaussian", "point", "mixture"))
def test_in_phase_space_the_predictions_agree(data):
    """Tweedie's formula by all components, and ε of the last by its Cholesky factor."""
    x0, eps, score = (
        GaussianMixtureDenoiser(PHASE, **data, shape=(2, 1, 1), parameterization=name)(states(4, 1, 1), TIME)
        for name in ("x0", "eps", "score")
    )
    model = GaussianMixtureDenoiser(PHASE, **data, shape=(2, 1, 1))
    mean, cov = PHASE.moments(TIME)
    full = model.score(states(4, 1, 1), TIME).view(3, 2, 2)
    torch.testing.assert_close(
        mean[:, :, None] * x0.view(3, 1, 2), states(4, 1, 1).view(3, 2, 2) + cov @ full
    )
    torch.testing.assert_close(score.view(3, 2), full[:, 1])
    factor = torch.linalg.cholesky(cov)
    noise = torch.linalg.solve(factor, states(4, 1, 1).view(3, 2, 2) - mean[:, :, None] * x0.view(3, 1, 2))
    torch.testing.assert_close(eps.view(3, 2), noise[:, 1])


def test_the_flow_in_phase_space_carries_a_gaussian_to_its_marginal():
    model = GaussianMixtureDenoiser(PHASE, (0.3,), 0.25)
    centre_and_axes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    moved = reference_flow(model, centre_and_axes.view(3, 2, 1, 1), 0.8, 0.2).view(3, 2)
    A = (moved[1:] - moved[:1]).mT
    mean, cov = PHASE.moments(torch.tensor([0.8, 0.2], dtype=torch.float64))
    V = 0.25 * mean[:, :, None] * mean[:, None, :] + cov
    torch.testing.assert_close(A @ V[0] @ A.mT, V[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(moved[0] + A @ (0.3 * mean[0]), 0.3 * mean[1], rtol=1e-9, atol=1e-10)


def test_one_component_is_the_case_of_several():
    for process in LOCAL:
        model = GaussianMixtureDenoiser(process, shape=(1, 2, 1))
        found = model.score(states(1, 2, 1), TIME)
        exact = model.predict(states(1, 2, 1), process.alpha(TIME), process.sigma(TIME), "score")
        torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("name", ["v", "flow"])
def test_what_phase_space_does_not_define_is_refused(name):
    with pytest.raises(UsageError, match="one component only"):
        GaussianMixtureDenoiser(PHASE, parameterization=name)


def test_the_phase_process_and_its_models_pass_the_kit():
    assert [record for record in run_checks("process", PHASE) if record.failed] == []
    model = GaussianMixtureDenoiser(PHASE)
    assert [record for record in run_checks("denoiser", model) if record.failed] == []


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("process", LOCAL, ids=lambda p: type(p).__name__)
def test_the_perfect_classifier_leads_where_classifier_free_guidance_does(process, scale):
    model = GaussianMixtureDenoiser(process, shape=(1, 2, 1))
    labels = torch.tensor([0, 1, 2])
    for name in ("eps", "x0"):
        free = classifier_free_target(model, states(1, 2, 1), TIME, labels, scale, name)
        led = classifier_target(model, states(1, 2, 1), TIME, labels, scale, name)
        torch.testing.assert_close(led, free, rtol=1e-10, atol=1e-10)


def test_what_is_no_mixture_is_refused():
    with pytest.raises(UsageError, match="no mixture"):
        GaussianMixtureDenoiser(LOCAL[0], (0.0, 1.0), (0.1,))
