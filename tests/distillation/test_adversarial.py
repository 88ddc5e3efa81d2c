"""Students whose states a discriminator holds to the law of the data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.interfaces.update import MODEL, Step
from trilemma.models import beside
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.distillation.progressive import DISCRIMINATOR, STUDENT, Progressive
from trilemma_plugins.unet.unet import UNet

COSINE = DiscreteVP("cosine")
ADVERSARIAL = Progressive(steps=2, adversarial=7.0, judge="any", layers=("down.0.0", "middle.1"))


def network(seed: int) -> UNet:
    torch.manual_seed(seed)
    made = UNet(COSINE, "v", (1, 8, 8), channels=(8, 16), blocks=1, patch=2, groups=4)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made


@pytest.fixture
def step(monkeypatch) -> Step:
    monkeypatch.setattr(beside, "load", lambda name: network(1))
    student = network(0)
    parts = ADVERSARIAL.parts(student)
    x0 = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return Step(student, student, parts, x0, {}, {}, torch.Generator().manual_seed(3))


def again(step: Step, **changed) -> Step:
    return replace(step, generator=torch.Generator().manual_seed(3), **changed)


def test_the_discriminator_learns_first_and_then_the_student():
    assert [update.name for update in ADVERSARIAL.updates()] == [DISCRIMINATOR, STUDENT]
    assert [update.learns for update in ADVERSARIAL.updates()] == [(DISCRIMINATOR,), (MODEL,)]
    assert [update.name for update in Progressive().updates()] == [MODEL]


def test_the_student_s_loss_is_the_weighted_mean_and_the_term_of_its_states(step):
    logits: list[Tensor] = []
    step.parts[DISCRIMINATOR].register_forward_hook(lambda *given: logits.append(given[2]))
    loss, scalars = ADVERSARIAL.update_loss(ADVERSARIAL.updates()[1], step)
    plain = Progressive(steps=2)
    mean = plain.update_loss(plain.updates()[0], again(step))
    torch.testing.assert_close(scalars["residual"], mean.detach())
    torch.testing.assert_close(loss, 7 * mean + F.softplus(-logits[0]).mean())


def test_it_judges_the_states_that_the_student_lands_on_and_those_of_the_data(step):
    """At the times of the grid of two steps, 0.5 and 0; of time 0 the true states are the data."""
    judged = []
    step.parts[DISCRIMINATOR].register_forward_pre_hook(lambda _, given: judged.append(given))
    ADVERSARIAL.update_loss(ADVERSARIAL.updates()[0], step)
    ((true,), (s,), _), ((drawn,), (same,), _) = judged
    assert torch.equal(s, same)
    assert sorted(set(s.tolist())) == [0.0, 0.5]
    torch.testing.assert_close(true[s == 0], step.x0[s == 0])
    assert not torch.allclose(drawn[s == 0], step.x0[s == 0])
    # Half of the variance is noise at 0.5.
    noise = true[s == 0.5] - 0.5**0.5 * step.x0[s == 0.5]
    assert float(noise.std()) == pytest.approx(0.5**0.5, rel=0.15)


def test_the_discriminator_s_loss_leaves_no_gradient_in_the_student(step):
    loss, _ = ADVERSARIAL.update_loss(ADVERSARIAL.updates()[0], step)
    loss.backward()
    assert all(weight.grad is None for weight in step.model.parameters())
    assert all(weight.grad is not None for weight in step.parts[DISCRIMINATOR].parameters())


@pytest.mark.parametrize("options", [{"adversarial": 1.0}, {"judge": "mnist"}, {"adversarial": -1.0}])
def test_a_weight_without_a_judge_and_a_judge_without_a_weight_are_refused(options):
    with pytest.raises(UsageError, match="give a positive weight and a model"):
        Progressive(**options)
