"""Students whose samples a discriminator holds to the law of the data."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import trilemma
from trilemma import InjectedNoise
from trilemma.errors import UsageError
from trilemma.interfaces.update import MODEL, Step
from trilemma.models import beside
from trilemma.numerics.draws import standard_normals
from trilemma.numerics.low_discrepancy import uniform_draws
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.distillation import teacher as teaching
from trilemma_plugins.distillation.adversarial import DISCRIMINATOR, STUDENT, Adversarial
from trilemma_plugins.unet.unet import UNet

COSINE = DiscreteVP("cosine")
LAYERS = ("down.0.0", "middle.1")
# Of one level, log-SNR 0: α² = σ² = ½.
EVEN = Adversarial("any", LAYERS, steps=4, levels=(0.0, 0.0))
OF_JUDGE, OF_STUDENT = EVEN.updates()


def network(seed: int, latent: int = 0) -> UNet:
    torch.manual_seed(seed)
    made = UNet(COSINE, "v", (1, 8, 8), channels=(8, 16), blocks=1, patch=2, groups=4, latent=latent)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made


@pytest.fixture
def step(monkeypatch) -> Step:
    monkeypatch.setattr(beside, "load", lambda name: network(1))
    student = network(0)
    parts = EVEN.parts(student)
    x0 = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return Step(student, student, parts, x0, {}, {}, torch.Generator().manual_seed(3))


def again(step: Step) -> Step:
    return replace(step, generator=torch.Generator().manual_seed(3))


def judged(step: Step) -> list:
    found: list = []
    step.parts[DISCRIMINATOR].register_forward_pre_hook(lambda _, given: found.append(given))
    return found


def test_the_discriminator_learns_first_and_the_student_after_it_and_more_seldom():
    updates = Adversarial("any", LAYERS, since=100, every=4).updates()
    assert [update.name for update in updates] == [DISCRIMINATOR, STUDENT]
    assert [update.learns for update in updates] == [(DISCRIMINATOR,), (MODEL,)]
    assert [update.due(99) for update in updates] == [True, False]
    assert all(update.due(100) for update in updates)
    assert not updates[1].due(101)


def test_it_judges_noised_data_and_noised_samples_at_one_level(step):
    found = judged(step)
    EVEN.update_loss(OF_JUDGE, step)
    ((true,), (at,), _), ((drawn,), (same,), _) = found
    torch.testing.assert_close(COSINE.alpha(at), torch.full((64,), 0.5**0.5, dtype=torch.float64))
    assert torch.equal(at, same)
    noise = (true - 0.5**0.5 * step.x0) / 0.5**0.5
    assert float(noise.std()) == pytest.approx(1, rel=0.05)
    assert abs(float((noise * step.x0).mean())) < 0.05
    assert not torch.allclose(true, drawn)


def test_it_draws_as_ddim_does_with_the_noise_of_the_step(step):
    """The images are those of `trilemma.sample` from the same noise, on the same grid."""
    noise = standard_normals(step.x0, torch.Generator().manual_seed(3))
    drawn = EVEN.drawn(step, noise, {})
    expected = trilemma.sample(step.model, 64, sampler="ddim", steps=4, noise=InjectedNoise(noise)).samples
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_with_eta_it_draws_as_ddim_does_with_new_noise_and_latents(step, eta):
    student = network(0, latent=3)
    objective = replace(EVEN, eta=eta)
    prior = standard_normals(step.x0, torch.Generator().manual_seed(4))
    drawn = objective.drawn(replace(step, model=student, network=student), prior, {})
    # In the order of the objective: in each step the latent, then the noise.
    generator = torch.Generator().manual_seed(3)
    pairs = [
        (torch.randn(64, 3, generator=generator), standard_normals(step.x0, generator)) for _ in range(4)
    ]
    latents, noise = zip(*pairs, strict=True)
    given = InjectedNoise(prior, steps=noise, draws=(latents,))
    expected = trilemma.sample(student, 64, sampler=f"ddim:eta={eta}", steps=4, noise=given).samples
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_goes_through_every_step(step):
    """A weight moved by h changes the loss by h times its gradient, to second order."""
    double = deepcopy(step.model).double()
    parts = {DISCRIMINATOR: deepcopy(step.parts[DISCRIMINATOR]).double()}
    made = replace(step, model=double, network=double, parts=parts, x0=step.x0.double()[:4])

    def loss() -> Tensor:
        return EVEN.update_loss(OF_STUDENT, again(made))

    value = loss()
    weight = double.inlet.weight
    (slope,) = torch.autograd.grad(value, weight)
    h = 1e-5 * slope / slope.norm()
    with torch.no_grad():
        weight += h
        up = loss()
        weight -= 2 * h
        down = loss()
    assert float((up - down) / 2) == pytest.approx(float((slope * h).sum()), rel=1e-4)


def test_the_student_s_loss_pulls_its_noised_samples_over_the_discriminator(step):
    logits: list[Tensor] = []
    step.parts[DISCRIMINATOR].register_forward_hook(lambda *given: logits.append(given[2]))
    loss = EVEN.update_loss(OF_STUDENT, step)
    torch.testing.assert_close(loss, F.softplus(-logits[0]).mean())
    loss.backward()
    assert all(weight.grad is not None for weight in step.model.parameters())


def test_a_teacher_s_images_from_the_same_noise_pull_the_student(step, monkeypatch):
    """The loss has the weighted squared distance beside its own, and none where the student is the teacher."""
    other = network(5)
    monkeypatch.setattr(teaching, "denoiser_beside", lambda *given: other.eval().requires_grad_(False))
    pulled = replace(EVEN, teacher="any", teacher_steps=2, pull=3.0)
    assert pulled.frozen == ("teacher",)
    assert EVEN.frozen == ()
    parts = {**step.parts, "teacher": pulled.parts(step.model)["teacher"]}
    loss, said = pulled.update_loss(OF_STUDENT, again(replace(step, parts=parts)))
    alone = EVEN.update_loss(OF_STUDENT, again(step))
    images = normals_of_the_loss(step)
    own = trilemma.sample(step.model, 64, sampler="ddim", steps=4, noise=InjectedNoise(images)).samples
    taught = trilemma.sample(other, 64, sampler="ddim", steps=2, noise=InjectedNoise(images)).samples
    distance = float((own - taught).square().mean())
    assert float(said["pull"]) == pytest.approx(distance, rel=1e-4)
    assert float((loss - alone).detach()) == pytest.approx(3 * distance, rel=1e-4)
    loss.backward()
    assert all(weight.grad is None for weight in other.parameters())
    itself = {**step.parts, "teacher": step.model}
    same = replace(pulled, teacher_steps=4)
    assert float(same.update_loss(OF_STUDENT, again(replace(step, parts=itself)))[1]["pull"]) < 1e-10


def normals_of_the_loss(step: Step) -> Tensor:
    """The noise that a loss begins with, after the draw of its levels."""
    generator = torch.Generator().manual_seed(3)
    uniform_draws(len(step.x0), generator)
    return standard_normals(step.x0, generator)


def test_a_student_that_draws_the_data_fools_every_discriminator(step, monkeypatch):
    """Both halves of the discriminator's loss then see one law, and no logit tells them apart."""
    x0 = step.x0
    monkeypatch.setattr(Adversarial, "drawn", lambda *given: x0[torch.randperm(len(x0))])
    gaps = []
    for seed in range(40):
        made = replace(step, generator=torch.Generator().manual_seed(seed))
        gaps.append(float(EVEN.update_loss(OF_JUDGE, made)[1]["gap"]))
    mean, error = torch.tensor(gaps).mean(), torch.tensor(gaps).std() / len(gaps) ** 0.5
    assert abs(float(mean)) < 4 * float(error)
    monkeypatch.setattr(Adversarial, "drawn", lambda *given: 0 * x0)
    assert abs(float(EVEN.update_loss(OF_JUDGE, step)[1]["gap"])) > 8 * float(error)


def test_the_discriminator_s_loss_leaves_no_gradient_in_the_student(step):
    loss, _ = EVEN.update_loss(OF_JUDGE, step)
    loss.backward()
    assert all(weight.grad is None for weight in step.model.parameters())
    assert all(weight.grad is not None for weight in step.parts[DISCRIMINATOR].parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (5.0, -1.0)}, "no range of log-SNRs"),
        ({"levels": (float("nan"), 1.0)}, "no range of log-SNRs"),
        ({"gamma": -1.0}, "out of range"),
        ({"steps": 0}, "no number of steps"),
        ({"pull": -1.0, "teacher": "any"}, "out of range"),
        ({"pull": 1.0}, "give both"),
        ({"teacher": "any"}, "give both"),
        ({"teacher": "any", "pull": 1.0, "eta": 1.0}, "eta=0"),
        ({"eta": 1.5}, "from 0 to 1"),
        ({"since": -1}, "no step"),
        ({"every": 0}, "no number of steps"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Adversarial("any", LAYERS, **options)
