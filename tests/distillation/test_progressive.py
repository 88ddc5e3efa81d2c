"""Progressive distillation against the paper's formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import spaced_times
from trilemma.interfaces.update import Step
from trilemma.numerics.conversion import convert
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.installed import processes_of_one_component
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.distillation.progressive import Progressive, two_steps
from trilemma_plugins.distillation.steps import Scales, flow_step, halved_times
from trilemma_plugins.processes.flow import Flow

SHAPE = (1, 4, 4)


class Wavy(Denoiser):
    """A network that is anything but linear, in float64."""

    def __init__(self, process: Process, parameterization: str = "v") -> None:
        super().__init__(process, parameterization, SHAPE)
        self.slope = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return (self.slope * z + t.view(-1, 1, 1, 1)).sin()


def normal(batch: int, seed: int) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_of(student: Denoiser, teacher: Denoiser, x0: Tensor) -> Step:
    generator = torch.Generator().manual_seed(3)
    return Step(student, student, {"teacher": teacher}, x0, {}, {}, generator)


class Cosine(Process):
    """The schedule of the paper: λ(u) = −2 log tan(a u + b), from 20 to −20."""

    least, most = -20.0, 20.0

    def log_snr(self, t):
        b = math.atan(math.exp(-self.most / 2))
        a = math.atan(math.exp(-self.least / 2)) - b
        return -2 * (a * t.double() + b).tan().log()

    def moments(self, t):
        log_snr = self.log_snr(t)
        return log_snr.sigmoid().sqrt()[..., None], (-log_snr).sigmoid()[..., None, None]


PROCESSES = [
    *processes_of_one_component(),
    DiscreteVP("cosine"),
    Cosine(),
]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: repr(process)[:40])
@pytest.mark.parametrize("parameterization", ["x0", "v"])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_one_step_of_the_target_is_two_of_the_teacher(process, parameterization, steps):
    teacher = Wavy(process, parameterization)
    times = halved_times(process, steps, "trailing")
    t, m, s = times[:-2:2], times[1:-1:2], times[2::2]
    z = normal(steps, 0)
    target = two_steps(teacher, z, t, m, s, {})
    at_t, at_m, at_s = (Scales.at(process, time) for time in (t, m, s))

    def x0(z: Tensor, time: Tensor, scales: Scales) -> Tensor:
        p, q = (c.view(-1, 1, 1, 1) for c in convert(parameterization, "x0", scales.alpha, scales.sigma))
        return p * z + q * teacher(z, time)

    middle = flow_step(z, x0(z, t, at_t), at_t, at_m)
    end = flow_step(middle, x0(middle, m, at_m), at_m, at_s)
    # Of states as large as the noise.
    torch.testing.assert_close(
        flow_step(z, target, at_t, at_s), end, rtol=0, atol=1e-12 * max(1, at_t.sigma[0])
    )
    ratio = (at_s.sigma / at_t.sigma).view(-1, 1, 1, 1)
    of_the_paper = (end - ratio * z) / (at_s.alpha.view(-1, 1, 1, 1) - ratio * at_t.alpha.view(-1, 1, 1, 1))
    torch.testing.assert_close(target, of_the_paper, rtol=1e-8, atol=1e-8)
    # In the step onto the data the second answer is the target.
    torch.testing.assert_close(target[-1:], x0(middle, m, at_m)[-1:], rtol=0, atol=1e-14)


def test_the_papers_ratio_is_that_of_the_noise():
    """r = σ''/σ_t = exp((softplus(λ_t) − softplus(λ''))/2) on the paper's schedule, whose ends are at λ = ±20."""
    process = Cosine()
    assert process.log_snr(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([20.0, -20.0], abs=1e-6)
    times = halved_times(process, 8, "trailing")
    t, s = times[:-2:2], times[2::2]
    softplus = torch.nn.functional.softplus
    ratio = ((softplus(process.log_snr(t)) - softplus(process.log_snr(s))) / 2).exp()
    # At time 0, where λ = 20, the engine has the data themselves.
    found = Scales.at(process, s).sigma / Scales.at(process, t).sigma
    torch.testing.assert_close(found[:-1], ratio[:-1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", [DiscreteVP("cosine"), Cosine()], ids=["vp", "paper"])
def test_the_weight_snr_plus_one_is_the_plain_error_of_v(process):
    student, teacher = Wavy(process), Wavy(process, "x0")
    asked = []
    student.register_forward_pre_hook(lambda _, given: asked.append(given))
    objective = Progressive(steps=4, weighting="snr+1")
    loss = objective.update_loss(None, step_of(student, teacher, normal(64, 1)))
    ((z, t),) = asked
    t = t.double()
    alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in process.alpha_sigma(t))
    target = two_steps(teacher, z, t, t - 1 / 8, t - 1 / 4, {})
    # x = α z − σ v.
    v = (alpha * z - target) / sigma
    torch.testing.assert_close(loss, (student(z, t) - v).square().mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("weighting", "weight"), [("truncated-snr", lambda r: r.clamp_min(1)), ("snr+1", lambda r: r + 1)]
)
@pytest.mark.parametrize("parameterization", ["x0", "v", "eps"])
def test_the_loss_is_the_papers(weighting, weight, parameterization):
    process = DiscreteVP("cosine")
    student, teacher = Wavy(process, parameterization), Wavy(process)
    x0 = normal(64, 1)
    asked = []
    student.register_forward_pre_hook(lambda _, given: asked.append(given))
    loss = Progressive(steps=4, weighting=weighting).update_loss(None, step_of(student, teacher, x0))
    (z, t), *_ = asked
    t = t.double()
    assert sorted(set((t * 4).tolist())) == [1, 2, 3, 4]
    scales = Scales.at(process, t)
    p, q = (c.view(-1, 1, 1, 1) for c in convert(parameterization, "x0", scales.alpha, scales.sigma))
    target = two_steps(teacher, z, t, t - 1 / 8, t - 1 / 4, {})
    errors = (p * z + q * student(z, t) - target).square()
    expected = (weight(scales.snr).view(-1, 1, 1, 1) * errors).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_the_student_learns_and_the_teacher_does_not():
    process = DiscreteVP("cosine")
    student, teacher = Wavy(process), Wavy(process)
    Progressive(steps=4).update_loss(None, step_of(student, teacher, normal(8, 2))).backward()
    assert student.slope.grad is not None
    assert teacher.slope.grad is None


class Distilled(Denoiser):
    """The perfect student of a teacher, at the times of its grid."""

    def __init__(self, teacher: Denoiser, steps: int, grid: str) -> None:
        super().__init__(teacher.process, "x0", teacher.shape)
        self.teacher, self.times = teacher, halved_times(teacher.process, steps, grid)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        at = int((self.times - t[0].double()).abs().argmin())
        t, m, s = (self.times[at + k].expand(len(z)) for k in range(3))
        return two_steps(self.teacher, z, t, m, s, {})


@pytest.mark.parametrize("halvings", [1, 2])
def test_a_chain_of_perfect_students_keeps_the_teachers_samples(halvings):
    """The deviation of DDIM with 20 steps on N(0, 1/4) stays that of students with 10 and with 5."""
    teacher: Denoiser = GaussianDenoiser(DiscreteVP("linear"), [0.0], 0.25, "eps", SHAPE)
    start = torch.ones(1, *SHAPE, dtype=torch.float64)
    settings = {"latent": start, "dtype": torch.float64}
    expected = trilemma.sample(teacher, 1, sampler="ddim:grid=trailing", steps=20, **settings).samples
    student, steps = teacher, 20
    for _ in range(halvings):
        steps //= 2
        student = Distilled(student, steps, "trailing")
    drawn = trilemma.sample(student, 1, sampler="ddim:grid=trailing", steps=steps, **settings).samples
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: repr(process)[:40])
def test_each_halving_composes_the_affine_maps_of_gaussian_data(process):
    """A step of DDIM on N(m, s²) is z ← A z + b; a student of half the steps takes A₂ A₁ z + A₂ b₁ + b₂."""
    mean, variance, steps = 0.3, 0.25, 8
    teacher: Denoiser = GaussianDenoiser(process, [mean], variance, "x0", SHAPE)
    times = spaced_times(process, steps, "trailing")
    alpha, sigma = process.alpha_sigma(times)
    maps = []
    for i in range(steps):
        gain = alpha[i] * variance / (alpha[i] ** 2 * variance + sigma[i] ** 2)
        ratio = sigma[i + 1] / sigma[i]
        weight = alpha[i + 1] - ratio * alpha[i]
        maps.append((ratio + weight * gain, weight * (1 - gain * alpha[i]) * mean))
    z = normal(1, 5) * float(sigma[0])
    while steps > 1:
        steps //= 2
        pairs = zip(maps[::2], maps[1::2], strict=True)
        maps = [(later * first, later * shift + added) for (first, shift), (later, added) in pairs]
        times = halved_times(process, steps, "trailing")
        for i, (slope, shift) in enumerate(maps):
            t, m, s = (times[2 * i + k : 2 * i + k + 1] for k in range(3))
            target = two_steps(teacher, z, t, m, s, {})
            found = flow_step(z, target, Scales.at(process, t), Scales.at(process, s))
            expected = slope * z + shift
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * max(1, float(sigma[0])))
        teacher = Distilled(teacher, steps, "trailing")


def test_grids_that_do_not_halve_are_refused():
    process = DiscreteVP("linear", T=12)
    with pytest.raises(UsageError, match="does not pass through the times of its 3 steps"):
        halved_times(process, 3, "linspace")
    times = halved_times(process, 3, "trailing")
    assert torch.equal(times[::2], spaced_times(process, 3, "trailing"))


def test_noise_alone_says_nothing_about_x0_under_pure_noise():
    student = Wavy(Flow(), "eps")
    with pytest.raises(UsageError, match="says nothing about x0"):
        Progressive(steps=4).update_loss(None, step_of(student, Wavy(Flow()), normal(8, 2)))


@pytest.mark.parametrize("options", [{"steps": 0}, {"drop": 2.0}, {"weighting": "snr"}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        Progressive(**options)
