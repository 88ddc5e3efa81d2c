"""The updates of a denoising diffusion GAN."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.interfaces.update import Step
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


def test_r1_is_half_gamma_times_the_squared_slope():
    objective, model = DenoisingGAN(width=8, gamma=2.0), generator_network()
    step = step_of(objective, model)
    asked = []
    judge = step.parts["discriminator"]
    judge.register_forward_pre_hook(lambda _, given: asked.append(given))
    _, scalars = objective.update_loss(objective.updates()[0], step)
    z_s, z_t, t, cond = asked[0]
    z_s = z_s.detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge(z_s, z_t, t, cond).sum(), z_s)
    assert float(scalars["r1"]) == pytest.approx(float(slope.square().sum() / len(z_s)), rel=1e-5)


def test_both_networks_are_told_the_time_of_the_later_state():
    objective, model = DenoisingGAN(width=8), generator_network()
    step = step_of(objective, model)
    told = []
    model.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    step.parts["discriminator"].register_forward_pre_hook(lambda _, given: told.append(given[2]))
    objective.update_loss(objective.updates()[0], step)
    assert torch.equal(told[0], told[1])
    assert sorted(set((told[0] * 4).tolist())) == [1, 2, 3, 4]


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
    assert judge(z, z, torch.rand(5), {}).shape == (5,)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="denoiser of x0"):
        DenoisingGAN().parts(MLP(FOUR, "eps", (2, 1, 1), width=4))
    with pytest.raises(UsageError, match="set steps"):
        DenoisingGAN().parts(MLP(ContinuousVP(), "x0", (2, 1, 1), width=4))
    for options in ({"gamma": -1.0}, {"lazy": 0}, {"width": 0}, {"steps": -1}):
        with pytest.raises(UsageError):
            DenoisingGAN(**options)
