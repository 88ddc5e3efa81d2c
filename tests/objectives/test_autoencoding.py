"""The loss of autoencoders against its definition; the codes of the written model are normalised."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.update import Step, Update
from trilemma.models.construction import Constructing
from trilemma.train.recipe import make_recipe
from trilemma.train.trainer import train
from trilemma_plugins.digits.coder import SmallCoder
from trilemma_plugins.objectives.autoencoding import Autoencoding


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
