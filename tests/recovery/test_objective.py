"""The objective of recovery likelihood: its loss, its chains, and what it does not touch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.update import Step
from trilemma.testing.parametrizing import parametrize_with_checks
from trilemma.train import trainer
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import make_recipe
from trilemma.train.stages import read_stages
from trilemma.train.trainer import train
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.points.mlp import MLP
from trilemma_plugins.recovery.objective import Recovery
from trilemma_plugins.recovery.quadratic import QuadraticEnergy
from trilemma_plugins.recovery.residual import EnergyResNet

RECIPES = Path(__file__).parents[2] / "plugins" / "trilemma_plugins" / "recovery" / "recipes"
LINEAR = DiscreteVP("linear")


@parametrize_with_checks(
    [
        Recovery(steps=3, chain=3),
        ("denoiser", EnergyResNet(LINEAR, "eps", (1, 8, 8), channels=(4, 8), classes=3)),
        ("denoiser", QuadraticEnergy(LINEAR, "eps", (2, 1, 1), network="mlp", width=8, classes=3)),
    ]
)
def test_conformance(check):
    check()


class Offset(QuadraticEnergy):
    """The exact energy of N(0, 1), to which a number times the first coordinate can be added."""

    def __init__(self):
        super().__init__(LINEAR, "eps", (1, 1, 1), network="mlp", width=2)
        self.slope = torch.nn.Parameter(torch.zeros(()))

    def energy(self, z, t, **cond):
        log_p = -z.square().flatten(1).sum(1) / 2 + self.slope * z.flatten(1)[:, 0]
        return -LINEAR.sigma(t.double()).to(log_p) * log_p


def gradient(model, mean: float, seeds: int = 8) -> float:
    """The mean gradient of the slope on data N(mean, 1), in the transitions between levels."""
    objective = Recovery(grid=(0.5, 0.3), end=0.1, step=0.05, penalty=0.0)
    total = 0.0
    for seed in range(seeds):
        x0 = mean + torch.randn(4096, 1, 1, 1, generator=torch.Generator().manual_seed(100 + seed))
        step = Step(model, model, {}, x0, {}, {}, torch.Generator().manual_seed(seed))
        loss, _ = objective.update_loss(objective.updates()[0], step)
        model.slope.grad = None
        loss.backward()
        total += float(model.slope.grad) / seeds
    return total


def test_the_gradient_vanishes_at_the_law_of_the_data_and_leads_to_it_elsewhere():
    """Of data N(0, 1) the exact energy moves nowhere; data further right raise the slope."""
    model = Offset()
    still, right = gradient(model, 0.0), gradient(model, 0.5)
    assert abs(still) < 0.1 * abs(right)
    assert right < 0


def test_no_gradient_of_the_weights_goes_through_the_chain():
    """The slope's gradient is that of F alone: the difference of the mean first coordinates, weighted."""
    model = Offset()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    gradient(model, 0.0, 1)
    assert len(seen) == 30
    assert not any(seen)


def test_a_model_without_an_energy_is_refused():
    with pytest.raises(UsageError, match="gradient of an energy"):
        Recovery().parts(MLP(LINEAR, "eps"))


@pytest.mark.parametrize(
    "options", [{"chain": 0}, {"step": -1.0}, {"penalty": -1.0}, {"most": 0.0}, {"drop": 2.0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        Recovery(**options)


def test_a_spectral_norm_is_one_and_survives_an_average():
    layer = EnergyResNet(LINEAR, "eps", (1, 8, 8), channels=(4, 8)).train().blocks[0].first
    for _ in range(50):
        layer.weight  # noqa: B018
    layer.eval()
    assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) == pytest.approx(1, abs=1e-3)
    before = layer.weight.clone()
    layer.parametrizations.weight[0].left *= 0.9
    torch.testing.assert_close(layer.weight, before)


def test_it_resumes_bit_for_bit(tmp_path, monkeypatch):
    table = {
        "steps": 6,
        "batch_size": 8,
        "tensorboard": False,
        "checkpoint_every": 2,
        "log_every": 3,
        "dataset": {"spec": "mixture2d:n=200"},
        "process": {"spec": "vp"},
        "denoiser": {"spec": "energy-mlp", "parameterization": "eps", "options": {"width": 8}},
        "objective": {"spec": "recovery:steps=3,chain=3,step=1e-4"},
    }
    train(make_recipe(table), tmp_path / "whole")

    step = trainer._Run._step

    def interrupted(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer._Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(make_recipe(table), tmp_path / "run")
    monkeypatch.setattr(trainer._Run, "_step", step)
    train(make_recipe(table), tmp_path / "run")
    a, b = (
        load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "run")
    )
    for group, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[group][name]), (group, name)


@pytest.mark.parametrize("name", ["mnist", "points"])
def test_a_recipe_trains_and_samples_on_the_same_levels(name):
    stages = read_stages(RECIPES / f"{name}.toml")
    last = stages[-1].table
    objective = trilemma.objective(last["objective"]["spec"])
    sampler = trilemma.sampler(last["sampling"]["sampler"])
    assert [stage.name for stage in stages][-2:] == [
        "matching",
        {"points": "recovery", "mnist": "recovery-mnist"}[name],
    ]
    for option in ("end", "step", "rule", "noise", "chain"):
        assert getattr(objective, option) == getattr(sampler, option), option
    assert tuple(objective.grid) == sampler.grid
    assert last["sampling"]["steps"] == len(sampler.grid)


class Point(torch.nn.Module):
    """x̂₀ of data at one point, in v: (α z − x₀)/σ."""

    def __init__(self, x0):
        super().__init__()
        self.x0 = x0

    def forward(self, z, t):
        alpha, sigma = (entry.to(z).view(-1, 1, 1, 1) for entry in LINEAR.alpha_sigma(t.double()))
        return (alpha * z - self.x0) / sigma


def test_of_data_at_one_point_the_energy_is_exact():
    """F = ‖z − α x₀‖²/2σ, whose gradient is the noise in z."""
    model = QuadraticEnergy(LINEAR, "eps", (2, 1, 1), network="mlp", width=2).double()
    x0, noise = torch.randn(2, 5, 2, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model.network = Point(x0)
    t = torch.tensor([0.02, 0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    alpha, sigma = LINEAR.alpha_sigma(t)
    z = alpha.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * noise
    torch.testing.assert_close(model(z, t), noise, rtol=1e-4, atol=1e-5)
    expected = sigma * noise.square().flatten(1).sum(1) / 2
    torch.testing.assert_close(model.energy(z, t), expected, rtol=1e-4, atol=1e-5)


def test_another_answer_than_noise_is_refused():
    with pytest.raises(UsageError, match="answer in eps, not 'v'; give eps"):
        QuadraticEnergy(LINEAR, "v", (2, 1, 1), network="mlp", width=2)


def test_a_step_too_long_for_points_is_refused():
    model = QuadraticEnergy(DiscreteVP(), "eps", (2, 1, 1), network="mlp", width=8)
    with pytest.raises(
        UsageError, match=r"step=0.0002 is 1\.[0-9] times as long as a chain bears at t=0.001"
    ):
        Recovery(steps=3).parts(model)
    assert Recovery(steps=3, step=1e-4).parts(model) == {}
