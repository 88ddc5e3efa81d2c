"""The gradients of one backward pass are those of two losses: of the denoiser's weighting, and of the likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from support.linear_gaussian import LinearGaussian
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.update import Step, Update
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma.testing import check_objective
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.lsgm.cross_entropy import cross_entropy, entropy, last_divergence
from trilemma_plugins.lsgm.objective import LatentScoreModel
from trilemma_plugins.lsgm.spectral import SpectralNorms

NATS = 4 * math.log(2)


class Factor(Denoiser):
    """ε̂ = a z."""

    def __init__(self) -> None:
        super().__init__(ContinuousVP(), "eps", (2, 1, 1))
        self.factor = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return self.factor * z


def networks() -> tuple[Factor, LinearGaussian]:
    model, coder = Factor(), LinearGaussian(widened=1.7)
    model.view = Latent(coder, (1, 2, 2))
    return model, coder


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def step_of(model: Factor, coder: LinearGaussian, number: int) -> Step:
    draws = torch.Generator().manual_seed(3)
    return Step(model, model, {"autoencoder": coder}, images(), {}, {}, draws, number)


def terms(objective: LatentScoreModel, model: Factor, coder: LinearGaussian) -> tuple[Tensor, ...]:
    """Reconstruction, ‖ε − ε̂‖², its two weights, and what else the divergence has, [B] nats, from the same draws."""
    x, draws = images(), torch.Generator().manual_seed(3)

    def normal() -> Tensor:
        return torch.randn(len(x), 2, 1, 1, generator=draws).double()

    mean, log_variance = coder.encode(x)
    code = mean + (log_variance / 2).exp() * normal()
    u = uniform_draws(len(x), draws)
    times = objective.times(model.process)
    drawn = times.draw(objective.weighting, u)
    noise = normal()
    alpha, sigma = model.process.scales(drawn.t, code)
    error = (noise - model.factor * (alpha * code + sigma * noise)).square().flatten(1).sum(1)
    low, high = times.ends
    first = code + float((low / (1 - low)).sqrt()) * normal()
    reconstruction = -coder.log_likelihood(x, first)
    constant = cross_entropy(torch.zeros(8, dtype=torch.float64), low, 2)
    beside = constant + last_divergence(code, high) - entropy(log_variance, low)
    return reconstruction, error, drawn.weight, drawn.likelihood, beside


@pytest.mark.parametrize("weighting", ["ll", "drop-sigma2", "unweighted"])
@pytest.mark.parametrize("number", [0, 5, 10])
def test_both_networks_have_the_gradients_of_their_own_loss(weighting, number: int) -> None:
    objective = LatentScoreModel(weighting=weighting, anneal=10, start=0.1, spectral=0.0)
    k = min(1.0, 0.1 + 0.9 * number / 10)
    model, coder = networks()
    loss, told = objective.update_loss(Update("model"), step_of(model, coder, number))
    found = torch.autograd.grad(loss, (model.factor, coder.columns))
    reconstruction, error, weight, likelihood, beside = terms(objective, model, coder)
    (own,) = torch.autograd.grad((weight * error).mean() / NATS, model.factor, retain_graph=True)
    bound = (reconstruction + k * (likelihood * error + beside)).mean() / NATS
    (theirs,) = torch.autograd.grad(bound, coder.columns, retain_graph=True)
    torch.testing.assert_close(found[0], own, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], theirs, rtol=1e-9, atol=1e-12)
    # The value is the bound, whatever the weight of the divergence in this step.
    whole = (reconstruction + likelihood * error + beside).mean() / NATS
    torch.testing.assert_close(loss, whole, rtol=1e-9, atol=1e-12)
    assert set(told) == {"reconstruction", "divergence", "share"}


def test_two_updates_have_them_too() -> None:
    objective = LatentScoreModel(weighting="drop-sigma2", separate=True, anneal=0, spectral=0.0)
    first, second = objective.updates()
    model, coder = networks()
    loss, _ = objective.update_loss(first, step_of(model, coder, 0))
    (found,) = torch.autograd.grad(loss, coder.columns)
    reconstruction, error, _, likelihood, beside = terms(LatentScoreModel(spectral=0.0), model, coder)
    bound = (reconstruction + likelihood * error + beside).mean() / NATS
    torch.testing.assert_close(found, torch.autograd.grad(bound, coder.columns)[0], rtol=1e-9, atol=1e-12)
    prior = objective.update_loss(second, step_of(model, coder, 0))
    assert isinstance(prior, Tensor)
    found, nothing = torch.autograd.grad(prior, (model.factor, coder.columns), allow_unused=True)
    _, error, weight, _, _ = terms(objective, model, coder)
    expected = torch.autograd.grad((weight * error).mean() / NATS, model.factor)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert nothing is None


def test_the_weight_of_the_divergence_rises_slowly() -> None:
    objective = LatentScoreModel(anneal=100, start=0.0, kl=0.7)
    assert [objective.kl_weight(n) for n in (0, 50, 100, 1000)] == pytest.approx([0, 0.35, 0.7, 0.7])
    assert LatentScoreModel(anneal=0).kl_weight(0) == 1


def test_spectral_norms_are_the_largest_singular_values() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(5, 7))
        second = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(4, 2, 2))
        norms = SpectralNorms((first, second))
        # The vectors follow the weights.
        for module in (first, second):
            for entry in module.parameters():
                nn.init.normal_(entry)

    def exact() -> Tensor:
        layers = [first[0], first[2], *second]
        return torch.stack([torch.linalg.matrix_norm(e.weight.flatten(1), 2) for e in layers]).sum()

    for _ in range(400):
        found = norms((first, second))
    torch.testing.assert_close(found, exact(), rtol=1e-4, atol=0)
    theirs = torch.autograd.grad(exact(), second[0].weight)[0]
    torch.testing.assert_close(torch.autograd.grad(found, second[0].weight)[0], theirs, rtol=0, atol=1e-2)
    kept = norms.state_dict()["left0"].clone()
    norms.eval()((first, second))
    assert torch.equal(kept, norms.state_dict()["left0"])


@pytest.mark.parametrize("options", [{}, {"separate": True, "weighting": "unweighted"}])
def test_conformance(options) -> None:
    records = check_objective(LatentScoreModel(**options))
    assert [record.name for record in records if record.failed] == []
    assert len(records) > 8
