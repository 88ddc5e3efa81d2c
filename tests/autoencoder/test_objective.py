"""The loss of autoencoders against its definition; the codes of the written model are normalised."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest
import torch

import trilemma
from trilemma import Autoencoder, lookup
from trilemma.errors import UsageError
from trilemma.interfaces.update import Step, Update
from trilemma.models.construction import Constructing
from trilemma.train.checkpoint import load_checkpoint
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train
from trilemma_plugins.autoencoder.network import AutoencoderKL
from trilemma_plugins.autoencoder.objective import Autoencoding
from trilemma_plugins.digits.coder import SmallCoder


def test_it_is_the_error_of_a_sampled_code_and_the_weighted_divergence():
    with Constructing(2):
        coder = SmallCoder((1, 8, 8))
    x0 = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    step = Step(coder, coder, {}, x0, {}, {}, torch.Generator().manual_seed(7))
    loss, scalars = Autoencoding(kl=0.3).update_loss(Update("model"), step)
    mean, log_variance = coder.encode(x0)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    error = (coder.decode(mean + q.scale * noise) - x0).square().mean()
    torch.testing.assert_close(loss, error + 0.3 * divergence)
    torch.testing.assert_close(scalars["kl"], divergence)
    torch.testing.assert_close(scalars["reconstruction"], error)


def test_the_written_codes_have_mean_0_and_deviation_1_over_the_whole_training_set(tmp_path):
    recipe = make_recipe(
        {
            "steps": 3,
            "batch_size": 32,
            "tensorboard": False,
            "dataset": {"spec": "digits"},
            "autoencoder": {"spec": "small-coder"},
            "objective": {"spec": "autoencoding"},
        }
    )
    coder = trilemma.load(train(recipe, tmp_path / "run").model)
    x0, _ = lookup.dataset("digits").batch(torch.arange(len(lookup.dataset("digits"))))
    noise = torch.randn(len(x0), *coder.code_shape((1, 8, 8)), generator=torch.Generator().manual_seed(0))
    codes = coder.normalised_code(x0, noise).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(codes.mean(1), torch.zeros(2, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(codes.std(1), torch.ones(2, dtype=torch.float64), atol=0.02, rtol=0)


def test_a_weight_below_0_and_a_model_without_codes_are_refused():
    with pytest.raises(UsageError, match="is negative"):
        Autoencoding(kl=-1)
    network = torch.nn.Linear(1, 1)
    step = Step(network, network, {}, torch.zeros(1, 1, 1, 1), {}, {}, torch.Generator())
    with pytest.raises(UsageError, match="has no codes"):
        Autoencoding().update_loss(Update("model"), step)


def test_odd_sides_have_no_code():
    with pytest.raises(UsageError, match="odd sides"):
        SmallCoder((1, 7, 8))


SHAPE = (1, 16, 16)


def small(shape=SHAPE):
    with Constructing(2):
        return AutoencoderKL(shape, widths=(8,), channels=2)


def step_of(objective, coder, number, side=16):
    x0 = torch.rand(5, 1, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with Constructing(4):
        parts = objective.parts(coder)
    return Step(coder, coder, parts, x0, {}, {}, torch.Generator().manual_seed(7), number)


class Folded(Autoencoder):
    """Patches of 4×4 pixels, each by itself, to two numbers and back."""

    def __init__(self, shape):
        super().__init__(shape, 2)
        self.there, self.back = (
            torch.nn.Conv2d(1, 2, 4, stride=4),
            torch.nn.ConvTranspose2d(2, 1, 4, stride=4),
        )

    def code_shape(self, shape):
        return 2, shape[1] // 4, shape[2] // 4

    def encode(self, x):
        mean = self.there(x)
        return mean, torch.full_like(mean, -30.0)

    def decode(self, code):
        return self.back(code)


@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_no_weight_changes_with_the_size_of_the_images(error):
    with Constructing(1):
        coder = Folded(SHAPE)
    losses = []
    for times in (1, 2):
        objective = Autoencoding(kl=0.7, error=error, features="image-features", perceptual=0.0)
        step = step_of(objective, coder, 0)
        step = dataclasses.replace(step, x0=step.x0.repeat(1, 1, times, times))
        losses.append(objective.update_loss(Update("model"), step)[0].detach())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_the_discriminator_weighs_as_much_as_the_error_at_the_last_layer():
    objective, coder = Autoencoding(error="absolute", adversarial=0.5, start=3, width=8), small()
    step = step_of(objective, coder, 3)
    loss, scalars = objective.update_loss(Update("model"), step)
    silent, _ = objective.update_loss(
        Update("model"), dataclasses.replace(step, number=2, generator=torch.Generator().manual_seed(7))
    )
    torch.testing.assert_close(loss, silent + 0.5 * scalars["weight"] * scalars["deceit"])
    mean, log_variance = coder.encode(step.x0)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    drawn = coder.decode(mean + (log_variance / 2).exp() * noise)
    norms = [
        torch.autograd.grad(term, coder.outlet.weight, retain_graph=True)[0].norm()
        for term in ((drawn - step.x0).abs().mean(), step.parts["discriminator"](drawn).mean())
    ]
    torch.testing.assert_close(scalars["weight"], norms[0] / norms[1])
    assert not scalars["weight"].requires_grad


def test_the_discriminator_learns_by_the_hinge_loss():
    objective, coder = Autoencoding(adversarial=0.5, width=8), small()
    step = step_of(objective, coder, 1)
    loss, scalars = objective.update_loss(objective.updates()[1], step)
    judge = step.parts["discriminator"]
    mean, log_variance = coder.encode(step.x0)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    false = judge(coder.decode(mean + (log_variance / 2).exp() * noise))
    true = judge(step.x0)
    expected = ((1 - true).clamp_min(0).mean() + (1 + false).clamp_min(0).mean()) / 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(scalars["gap"], (true.mean() - false.mean()).detach())
    loss.backward()
    assert all(weight.grad is None for weight in coder.parameters())
    # The last bias is pushed up by the one half and down by the other.
    assert all(weight.grad.any() for weight in list(judge.parameters())[:-1])


def test_the_distance_of_features_is_that_of_the_directions_of_their_activations():
    objective, coder = Autoencoding(kl=0.0, features="image-features", perceptual=2.0), small((3, 32, 32))
    x0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = objective.parts(coder)["features"]
    assert objective.frozen == ("features",)
    assert distance(x0, x0).tolist() == [0, 0]
    network = distance.network
    first, second = (network.stem(images) for images in (x0, x0.flip(3)))
    units = [entry / entry.norm(dim=1, keepdim=True) for entry in (first, second)]
    seen = distance._activations(x0), distance._activations(x0.flip(3))
    torch.testing.assert_close(seen[0][0] - seen[1][0], units[0] - units[1])
    assert len(seen[0]) == 8
    expected = torch.stack([(a - b).square().sum(1).mean() for a, b in zip(*seen, strict=True)]).mean()
    torch.testing.assert_close(distance(x0, x0.flip(3)).mean(), expected)
    step = Step(coder, coder, {"features": distance}, x0, {}, {}, torch.Generator().manual_seed(7))
    loss, scalars = objective.update_loss(Update("model"), step)
    torch.testing.assert_close(loss, scalars["reconstruction"] + 2 * scalars["features"])
    loss.backward()
    assert coder.encoder[0].weight.grad.any()


def adversarial_recipe(**changes):
    return make_recipe(
        {
            "steps": 6,
            "batch_size": 16,
            "checkpoint_every": 2,
            "keep": 3,
            "tensorboard": False,
            "dataset": {"spec": "digits"},
            "autoencoder": {"spec": "autoencoder-kl", "options": {"widths": [8], "channels": 2}},
            "objective": {"spec": "autoencoding:error=absolute,adversarial=0.5,start=4,width=4"},
            **changes,
        }
    )


def discriminator_of(checkpoint):
    tensors = load_checkpoint(checkpoint).tensors
    return tensors["part.discriminator"], tensors.get("optimizer.discriminator", {})


def test_the_discriminator_moves_from_its_first_step_on_and_no_number_is_nan_in_bfloat16(tmp_path):
    run = tmp_path / "run"
    result = train(adversarial_recipe(precision="bf16", log_every=1), run)
    second, fourth, sixth = (discriminator_of(run / "checkpoints" / f"step-{n:09d}")[0] for n in (2, 4, 6))
    assert all(torch.equal(second[name], fourth[name]) for name in second)
    assert all(not torch.equal(fourth[name], sixth[name]) for name in fourth if name.endswith("weight"))
    assert all(tensor.isfinite().all() for tensor in trilemma.load(result.model).state_dict().values())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert ["discriminator_gap" in line for line in lines] == [False] * 4 + [True] * 2
    assert all(math.isfinite(line["model_loss"]) for line in lines)


def test_a_run_that_was_stopped_before_the_discriminator_began_ends_with_the_same_weights(tmp_path):
    whole = train(adversarial_recipe(), tmp_path / "whole")
    train(adversarial_recipe(), tmp_path / "parts")
    for number in (4, 6):
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{number:09d}")
    shutil.rmtree(tmp_path / "parts" / "model")
    again = train(adversarial_recipe(), tmp_path / "parts")
    first, second = (trilemma.load(result.model).state_dict() for result in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"error": "cubic"}, "unknown error"),
        ({"perceptual": -1}, "is negative"),
        ({"adversarial": math.nan}, "no number"),
        ({"start": 0}, "is no step"),
    ],
)
def test_options_out_of_range_are_refused(options, reason, one_line):
    with pytest.raises(UsageError, match=reason) as caught:
        Autoencoding(**options)
    one_line(caught.value)


def test_features_of_other_images_and_a_model_without_a_last_layer_are_refused(one_line):
    with pytest.raises(UsageError, match="takes no images of") as caught:
        Autoencoding(features="mnist-features").parts(small())
    one_line(caught.value)
    with pytest.raises(UsageError, match="names no last_weight") as caught:
        Autoencoding(adversarial=0.5).parts(SmallCoder((1, 8, 8)))
    one_line(caught.value)
