"""The updates of a denoising diffusion GAN."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trilemma import load
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.update import Step
from trilemma.numerics.broadcasting import column
from trilemma.train import trainer
from trilemma.train.recipe import make_recipe
from trilemma_plugins.ddgan.discriminator import Discriminator
from trilemma_plugins.ddgan.objective import DenoisingGAN
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.points.mlp import MLP

FOUR = DiscreteVP("few", T=4)


def generator_network(latent: int = 4) -> MLP:
    torch.manual_seed(0)
    network = MLP(FOUR, "x0", (2, 1, 1), width=16, depth=1, latent=latent)
    torch.nn.init.normal_(network.outlet.weight)
    return network


def step_of(objective: DenoisingGAN, model: MLP, number: int = 0) -> Step:
    torch.manual_seed(1)
    x0 = torch.randn(32, 2, 1, 1)
    parts = objective.parts(model)
    return Step(model, model, parts, x0, {}, {}, torch.Generator().manual_seed(2), number)


def test_the_discriminator_s_loss_leaves_no_gradient_in_the_generator():
    objective, model = DenoisingGAN(width=8), generator_network()
    of_judge, of_generator = objective.updates()
    step = step_of(objective, model)
    objective.update_loss(of_judge, step)[0].backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in step.parts["discriminator"].parameters())
    objective.update_loss(of_generator, step).backward()
    assert model.outlet.weight.grad.abs().sum() > 0
    assert model.latent_embedding.weight.grad is not None


def test_lazy_r1_counts_as_much_as_one_in_every_step():
    model = generator_network()
    found = {}
    for lazy, number in ((1, 0), (15, 0), (15, 1)):
        objective = DenoisingGAN(width=8, gamma=2.0, lazy=lazy)
        result = objective.update_loss(objective.updates()[0], step_of(objective, model, number))
        found[lazy, number] = [float(entry.detach()) for entry in (result[0], result[1].get("r1", result[0]))]
    (loss, r1), (lazily, same), (without, _) = found.values()
    assert same == pytest.approx(r1)
    assert loss - without == pytest.approx(r1, rel=1e-4)
    assert lazily - without == pytest.approx(15 * r1, rel=1e-4)


class Linear(nn.Module):
    """w · z_s, whose slope is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -4.0]).view(2, 1, 1))

    def forward(self, states, times, cond):
        return (self.weight * states[0]).flatten(1).sum(1)


@pytest.mark.parametrize("lazy", [1, 4, 15])
def test_r1_of_a_linear_discriminator_is_known(lazy):
    """γ/2 · ‖w‖² = 0.1 · 25, and its gradient is lazy · γ w."""
    model, judge = generator_network(), Linear()
    for number, times in ((0, lazy), (1, 1 if lazy == 1 else 0), (2 * lazy, lazy)):
        gradients, logged = {}, {}
        for gamma in (0.0, 0.2):
            objective = DenoisingGAN(width=8, gamma=gamma, lazy=lazy)
            step = replace(step_of(objective, model, number), parts={"discriminator": judge})
            loss, logged = objective.update_loss(objective.updates()[0], step)
            (gradients[gamma],) = torch.autograd.grad(loss, judge.weight)
        assert logged.get("r1", 0.0) == pytest.approx(2.5 if times else 0.0)
        penalty = gradients[0.2] - gradients[0.0]
        torch.testing.assert_close(penalty, times * 0.2 * judge.weight.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("drop", "told"), [(1, [3]), (0, [0, 1, 2])])
@pytest.mark.parametrize("update", [0, 1], ids=["discriminator", "generator"])
def test_both_networks_are_told_the_same_classes(drop, told, update):
    """With drop = 1 the null class, 3, and nothing else."""
    objective = DenoisingGAN(width=8, drop=drop)
    torch.manual_seed(0)
    model = MLP(FOUR, "x0", (2, 1, 1), width=16, depth=1, latent=4, classes=3)
    step = replace(step_of(objective, model), cond={"class": torch.arange(32) % 3})
    seen = []
    model.register_forward_pre_hook(lambda _, given, named: seen.append(named["class"]), with_kwargs=True)
    step.parts["discriminator"].register_forward_pre_hook(lambda _, given: seen.append(given[2]["class"]))
    objective.update_loss(objective.updates()[update], step)
    assert len(seen) == 3 - update
    assert all(torch.equal(labels, seen[0]) for labels in seen)
    assert seen[0].unique().tolist() == told


def test_a_discriminator_is_told_the_class():
    judge = Discriminator((2, 1, 1), (ClassCondition("class", size=3, null=3),), 8)
    z, t = torch.randn(5, 2, 1, 1), torch.full((5,), 0.5)
    found = [judge((z, z), (t, t), {"class": torch.full((5,), label)}) for label in range(4)]
    assert all(not torch.allclose(found[0], other) for other in found[1:])


def test_previews_and_the_model_have_the_averaged_weights(tmp_path, monkeypatch):
    """Of an average that warms up: after k = 0, 1, … it holds on to (1 + k)/(10 + k) of itself."""
    learned, shown = {}, []
    weights = torch.nn.utils.parameters_to_vector

    def drawn(model, *_):
        shown.append(weights(model.parameters()).detach().clone())

    original = DenoisingGAN.update_loss

    def watched(objective, update, step):
        if update.name == "discriminator":
            learned[step.number] = weights(step.model.parameters()).detach().clone()
        return original(objective, update, step)

    monkeypatch.setattr(trainer, "draw_sample_grid", drawn)
    monkeypatch.setattr(DenoisingGAN, "update_loss", watched)
    table = {
        "steps": 6,
        "batch_size": 8,
        "ema": 0.9,
        "ema_warmup": 10,
        "tensorboard": False,
        "dataset": {"spec": "digits"},
        "process": {"spec": "vp:schedule=few,T=4"},
        "denoiser": {"spec": "mlp", "parameterization": "x0", "options": {"width": 8, "latent": 2}},
        "objective": {"spec": "ddgan:width=8"},
        "optimizer": {"kind": "adam", "lr": 1e-2, "warmup": 0},
        "samples": {"every": 5, "n": 4, "steps": 4, "sampler": "ddim:eta=1"},
    }
    written = load(trainer.train(make_recipe(table), tmp_path / "run").model)
    average = learned[0]
    for k in range(5):
        average = average.lerp(learned[k + 1], 1 - (1 + k) / (10 + k))
    torch.testing.assert_close(shown[0], average)
    # The sixth step's weights are seen by nothing but the average.
    last = (weights(written.parameters()) - average * (6 / 15)) / (9 / 15)
    assert 0 < float((last - learned[5]).abs().max()) < 0.02


def test_r1_is_half_gamma_times_the_squared_slope():
    objective, model = DenoisingGAN(width=8, gamma=2.0), generator_network()
    step = step_of(objective, model)
    asked = []
    judge = step.parts["discriminator"]
    judge.register_forward_pre_hook(lambda _, given: asked.append(given))
    _, scalars = objective.update_loss(objective.updates()[0], step)
    (z_s, z_t), times, cond = asked[0]
    z_s = z_s.detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge((z_s, z_t), times, cond).sum(), z_s)
    assert float(scalars["r1"]) == pytest.approx(float(slope.square().sum() / len(z_s)), rel=1e-5)


def test_both_networks_are_told_the_time_of_the_later_state():
    objective, model = DenoisingGAN(width=8), generator_network()
    step = step_of(objective, model)
    told = []
    model.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    step.parts["discriminator"].register_forward_pre_hook(lambda _, given: told.append(given[1][1]))
    objective.update_loss(objective.updates()[0], step)
    assert torch.equal(told[0], told[1])
    assert sorted(set((told[0] * 4).tolist())) == [1, 2, 3, 4]


@pytest.mark.parametrize("parameterization", ["v", "flow"])
def test_an_answer_in_another_form_is_the_data_that_it_stands_for(parameterization):
    """Of a denoiser that knows x₀ and answers with αε − σx₀, or ε − x₀, as of one that answers with x₀ itself."""
    objective, model = DenoisingGAN(width=8), generator_network(latent=0)
    step = step_of(objective, model)

    class Knowing(MLP):
        def forward(self, z, t, **told):
            alpha, sigma = (column(entry, z) for entry in FOUR.alpha_sigma(t.double()))
            eps = (z - alpha * step.x0) / sigma
            answers = {"x0": step.x0, "v": alpha * eps - sigma * step.x0, "flow": eps - step.x0}
            return answers[self.parameterization].float()

    def loss(answer):
        knowing = Knowing(FOUR, answer, (2, 1, 1), width=4)
        return objective.update_loss(
            objective.updates()[1],
            replace(step, model=knowing, network=knowing, generator=torch.Generator().manual_seed(2)),
        )

    torch.testing.assert_close(loss(parameterization), loss("x0"), rtol=1e-4, atol=1e-5)


def test_the_generator_s_loss_is_that_of_its_posterior_sample():
    objective, model = DenoisingGAN(width=8), generator_network()
    step = step_of(objective, model)
    logits = []
    step.parts["discriminator"].register_forward_hook(lambda *given: logits.append(given[2]))
    loss = objective.update_loss(objective.updates()[1], step)
    torch.testing.assert_close(loss, F.softplus(-logits[0]).mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 1, 1), (3, 17, 9)])
def test_a_discriminator_fits_every_shape(shape):
    judge = Discriminator(shape, (), 4)
    z = torch.randn(5, *shape)
    assert judge((z, z), (torch.rand(5), torch.rand(5)), {}).shape == (5,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="denoiser of x0, v or flow"):
        DenoisingGAN().parts(MLP(FOUR, "eps", (2, 1, 1), width=4))
    with pytest.raises(UsageError, match="set steps"):
        DenoisingGAN().parts(MLP(ContinuousVP(), "x0", (2, 1, 1), width=4))
    for options in ({"gamma": -1.0}, {"lazy": 0}, {"width": 0}, {"steps": -1}, {"drop": 1.5}, {"drop": -0.1}):
        with pytest.raises(UsageError):
            DenoisingGAN(**options)
