"""A discriminator that sees through the features of a trained denoiser."""

from __future__ import annotations

import copy

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.interfaces.feature_discriminator import FeatureDiscriminator
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.unet.unet import UNet

LAYERS = ("down.0.0", "middle.1")


def network(**options) -> UNet:
    torch.manual_seed(0)
    given = {"channels": (8, 16), "blocks": 1, "classes": 3, "patch": 2, "groups": 4} | options
    made = UNet(DiscreteVP("cosine"), "v", (1, 8, 8), **given)
    # New blocks are their shortcuts, which hear neither time nor class.
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made


def states(count: int = 1, batch: int = 5):
    torch.manual_seed(1)
    given = [torch.randn(batch, 1, 8, 8) for _ in range(count)]
    times = [torch.full((batch,), 0.25 * k, dtype=torch.float64) for k in range(count)]
    return given, times, {"class": torch.arange(batch) % 3}


@pytest.mark.parametrize("count", [1, 2])
def test_its_heads_learn_and_its_denoiser_does_not(count):
    denoiser = network()
    before = copy.deepcopy(denoiser.state_dict())
    judge = FeatureDiscriminator(denoiser, LAYERS, states=count, width=8)
    optimizer = torch.optim.SGD(judge.parameters(), lr=0.1)
    logits = judge(*states(count))
    assert logits.shape == (5,)
    logits.mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in judge.parameters())
    assert not any(name.startswith("_frozen") for name in judge.state_dict())


def test_a_gradient_reaches_the_state_through_the_features():
    judge = FeatureDiscriminator(network(), LAYERS, width=8).requires_grad_(False)
    (z,), times, cond = states()
    judge([z.requires_grad_()], times, cond).sum().backward()
    assert z.grad.abs().sum() > 0


def test_the_features_are_those_of_the_layers_and_nothing_after_them_runs():
    denoiser = network()
    judge = FeatureDiscriminator(denoiser, LAYERS, width=8)
    ran = []
    denoiser.outlet.register_forward_hook(lambda *_: ran.append(True))
    (z,), (t,), cond = states()
    found = judge.features(z, t, cond)
    assert [tuple(entry.shape) for entry in found] == [(5, 8, 4, 4), (5, 16, 2, 2)]
    assert not ran
    kept = []
    hook = denoiser.middle[1].register_forward_hook(lambda *given: kept.append(given[2]))
    # Time 0 is asked at the earliest time of the process.
    denoiser(z, torch.full((5,), denoiser.process.earliest_time), **cond)
    hook.remove()
    torch.testing.assert_close(found[1], torch.nn.functional.group_norm(kept[0], 8))
    assert ran


def test_it_is_told_the_conditions_and_the_time():
    judge = FeatureDiscriminator(network(), LAYERS, width=8)
    (z,), (t,), cond = states()
    first = judge([z], [t], cond)
    assert not torch.allclose(first, judge([z], [t + 0.5], cond))
    assert not torch.allclose(first, judge([z], [t], {"class": (cond["class"] + 1) % 3}))


def test_it_moves_with_its_denoiser():
    judge = FeatureDiscriminator(network(), LAYERS, width=8).double()
    (z,), times, cond = states()
    assert judge([z.double()], times, cond).dtype == torch.float64


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "layers=\\[\\]"),
        (("nowhere",), "no layer 'nowhere'"),
        (("time_embedding",), r"sees through features \[B, C, H, W\]"),
        (("middle.1", "down.0.0"), "in the order in which they run"),
    ],
)
def test_layers_that_do_not_do_are_refused(layers, message):
    with pytest.raises(UsageError, match=message):
        FeatureDiscriminator(network(), layers)


def test_a_denoiser_that_draws_is_refused():
    with pytest.raises(UsageError, match="draws nothing"):
        FeatureDiscriminator(network(latent=4), LAYERS)
