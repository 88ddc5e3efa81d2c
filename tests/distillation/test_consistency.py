"""Consistency against the exact consistency function of Gaussian data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.interfaces.update import Step
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddpm.process import ContinuousVP
from trilemma_plugins.distillation.consistency import Consistency
from trilemma_plugins.processes.flow import Flow

VARIANCE = 0.25
SHAPE = (1, 2, 2)


class Flowing(Denoiser):
    """x₀ = z s/√(α²s² + σ²), where the flow through z_t of N(0, s²) ends, scaled by a slope."""

    def __init__(self, process: Process, slope: float = 1.0) -> None:
        super().__init__(process, "x0", SHAPE)
        self.slope = torch.nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t, z)
        return self.slope * z * (VARIANCE / (alpha**2 * VARIANCE + sigma**2)).sqrt()


def loss(student: Denoiser, steps: int, teacher: Denoiser | None = None, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x0 = VARIANCE**0.5 * torch.randn(512, *SHAPE, generator=generator, dtype=torch.float64)
    parts = {} if teacher is None else {"teacher": teacher}
    step = Step(student, student, parts, x0, {}, {}, generator)
    return Consistency(teacher="start" if teacher else "", steps=steps, **options).update_loss(None, step)


def test_the_exact_function_is_consistent_as_far_as_the_teachers_step_is():
    process = ContinuousVP()
    teacher = GaussianDenoiser(process, [0.0], VARIANCE, "eps", SHAPE)
    # Of the squared distance, whose root is of the order of one step of DDIM: the second.
    found = [float(loss(Flowing(process), n, teacher, huber=1e3).detach()) ** 0.5 for n in (20, 40, 80)]
    assert found[1] < found[0] / 3
    assert found[2] < found[1] / 3
    wrong = float(loss(Flowing(process, 1.5), 80, teacher, huber=1e3).detach()) ** 0.5
    assert wrong > 3 * found[2]


def test_the_answer_at_the_data_is_the_data():
    process = ContinuousVP()
    teacher = GaussianDenoiser(process, [0.0], VARIANCE, "eps", SHAPE)
    # A constant is consistent with itself everywhere but at the data.
    twisted = Flowing(process, 0.0)
    assert float(loss(twisted, 4, teacher).detach()) > 0.01


def test_gradients_flow_through_the_first_answer_alone():
    process = ContinuousVP()
    student = Flowing(process, 1.1)
    teacher = GaussianDenoiser(process, [0.0], VARIANCE, "eps", SHAPE)
    loss(student, 8, teacher).backward()
    assert student.slope.grad is not None
    assert torch.isfinite(student.slope.grad)


def test_without_a_teacher_the_later_state_has_the_same_data_and_noise():
    process = ContinuousVP()
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(64, *SHAPE, generator=generator, dtype=torch.float64)
    student, asked = Flowing(process), []
    student.register_forward_pre_hook(lambda _, given: asked.append(given))
    step = Step(student, student, {}, x0, {}, {}, generator)
    Consistency(teacher="", steps=4).update_loss(None, step)
    noise = []
    for z, t in asked:
        alpha, sigma = process.scales(t, z)
        noise.append((z - alpha * x0) / sigma)
    later, _ = (t for _, t in asked)
    # Where the later state is the data, no network is asked in truth.
    among = later > process.earliest_time
    assert 0 < int(among.sum()) < 64
    torch.testing.assert_close(noise[0][among], noise[1][among], rtol=0, atol=1e-9)


@pytest.mark.parametrize("teacher", [True, False])
def test_noise_alone_says_nothing_about_x0_under_pure_noise(teacher):
    process = Flow()
    student = GaussianDenoiser(process, [0.0], VARIANCE, "eps", SHAPE)
    given = GaussianDenoiser(process, [0.0], VARIANCE, "v", SHAPE) if teacher else None
    with pytest.raises(UsageError, match="says nothing about x0"):
        loss(student, 4, given)


@pytest.mark.parametrize("options", [{"steps": 1}, {"drop": -1.0}, {"huber": 0.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        Consistency(**options)
