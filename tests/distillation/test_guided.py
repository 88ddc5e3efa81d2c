"""A guided teacher, whose scale the student is told, against the exact guided flow of a mixture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition, ScalarCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.interfaces.update import Step
from trilemma.testing.guided import classifier_free_target
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.distillation.consistency import Consistency
from trilemma_plugins.distillation.guided import teacher_x0
from trilemma_plugins.distillation.progressive import Progressive, two_steps
from trilemma_plugins.distillation.steps import Scales, flow_step, halved_times
from trilemma_plugins.distillation.teacher import teacher_of
from trilemma_plugins.points.mlp import MLP
from trilemma_plugins.processes.flow import Flow

LOW, HIGH = 1.0, 4.0
SCALE = {"kind": "scalar", "name": "guidance", "low": LOW, "high": HIGH}
SHAPE = (2, 1, 1)
MEANS = [torch.tensor(point).view(SHAPE) for point in ([0.6, 0.0], [0.0, 0.6], [-0.6, 0.0], [0.0, -0.6])]


def mixture(process: Process, parameterization: str = "v") -> GaussianMixtureDenoiser:
    """Four wide modes, which guidance drives apart."""
    return GaussianMixtureDenoiser(process, MEANS, 0.09, None, parameterization, SHAPE)


def normal(batch: int, seed: int) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Listening(Denoiser):
    """Answers a number times its state, and remembers what it was told."""

    def __init__(self, process: Process, null: bool = False) -> None:
        conditions = ClassCondition("class", 4, null=4), ScalarCondition("guidance", LOW, HIGH, null=null)
        super().__init__(process, "x0", SHAPE, conditions)
        self.slope = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.told: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.told.append((z, t, cond))
        return self.slope * z + (cond["guidance"] - 1).to(z).view(-1, 1, 1, 1)


def guided_step(teacher: GaussianMixtureDenoiser, z: Tensor, t: float, s: float, label: int, scale: float):
    """One exact step of DDIM t → s of one state z [1, ...] under guidance."""
    at = torch.tensor([t], dtype=torch.float64)
    x0 = classifier_free_target(teacher, z, at, torch.tensor([label]), scale, "x0")
    return flow_step(
        z, x0, Scales.at(teacher.process, at), Scales.at(teacher.process, torch.tensor([s]).double())
    )


@pytest.mark.parametrize("process", [DiscreteVP("cosine"), Flow()], ids=repr)
@pytest.mark.parametrize("parameterization", ["x0", "v"])
@pytest.mark.parametrize("steps", [1, 4])
def test_one_step_of_the_target_is_two_guided_ones(process, parameterization, steps):
    """Each example has a class, a scale and a time of its own."""
    teacher = mixture(process, parameterization)
    times = halved_times(process, steps, "trailing")
    t, m, s = times[:-2:2], times[1:-1:2], times[2::2]
    z, labels = normal(steps, 0), torch.arange(steps) % 4
    scales = torch.tensor([2.5, 1.0, 4.0, 3.25])[:steps]
    cond = {"class": labels, "guidance": scales}
    target = two_steps(teacher, z, t, m, s, cond, "guidance")
    found = flow_step(z, target, Scales.at(process, t), Scales.at(process, s))
    for i, (label, scale) in enumerate(zip(labels.tolist(), scales.tolist(), strict=True)):
        middle = guided_step(teacher, z[i : i + 1], float(t[i]), float(m[i]), label, scale)
        end = guided_step(teacher, middle, float(m[i]), float(s[i]), label, scale)
        torch.testing.assert_close(found[i : i + 1], end, rtol=0, atol=1e-12)


def step_of(student: Denoiser, teacher: Denoiser, batch: int = 256) -> Step:
    draws = torch.Generator().manual_seed(3)
    x0, labels = normal(batch, 1), torch.arange(batch) % 4
    return Step(student, student, {"teacher": teacher}, x0, {"class": labels}, {}, draws)


def test_student_and_teacher_are_given_the_same_scale_from_the_whole_range():
    process = DiscreteVP("cosine")
    teacher, student = mixture(process), Listening(process)
    loss = Progressive(steps=4, guidance="guidance").update_loss(None, step_of(student, teacher))
    ((z, t, cond),) = student.told
    scales = cond["guidance"]
    assert LOW <= float(scales.min()) < LOW + 0.1
    assert HIGH - 0.1 < float(scales.max()) <= HIGH
    # No scale goes with a time.
    assert abs(float(torch.corrcoef(torch.stack([scales.double(), t.double()]))[0, 1])) < 0.2
    target = two_steps(teacher, z, t.double(), t.double() - 1 / 8, t.double() - 1 / 4, cond, "guidance")
    weight = Scales.at(process, t.double()).snr.clamp_min(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(loss, (weight * (student(z, t, **cond) - target).square()).mean())


@pytest.mark.parametrize(("drop", "same"), [({"guidance": 1.0}, "class"), ({"class": 1.0}, "null")])
def test_without_a_scale_or_a_class_the_teacher_is_not_guided(drop, same):
    process = DiscreteVP("cosine")
    teacher, student = mixture(process), Listening(process, null=True)
    Progressive(steps=4, guidance="guidance", drop=drop).update_loss(None, step_of(student, teacher))
    ((z, t, cond),) = student.told
    assert bool((cond["class"] == 4).all()) == (same == "null")
    assert bool(cond["guidance_given"].any()) == (same == "null")
    time = t.double()
    found = teacher_x0(teacher, z, time, Scales.at(process, time), cond, "guidance")
    plain = teacher_x0(teacher, z, time, Scales.at(process, time), {"class": cond["class"]})
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_a_teacher_that_takes_the_scale_is_told_it():
    process = DiscreteVP("cosine")
    teacher, student = Listening(process), Listening(process)
    Progressive(steps=4, guidance="guidance").update_loss(None, step_of(student, teacher))
    ((_, _, told),) = student.told
    assert len(teacher.told) == 2
    for _, _, cond in teacher.told:
        assert torch.equal(cond["guidance"], told["guidance"])
        assert torch.equal(cond["class"], told["class"])


def test_a_consistent_answer_is_that_along_the_guided_flow():
    process = DiscreteVP("cosine")
    teacher, student = mixture(process), Listening(process)
    Consistency(steps=4, guidance="guidance").update_loss(None, step_of(student, teacher))
    (later, s, cond), (z, t, first) = student.told
    assert cond.keys() == first.keys()
    inside = (s > process.earliest_time).nonzero().flatten().tolist()
    assert 50 < len(inside) < 256
    for i in inside[:8]:
        label, scale = int(cond["class"][i]), float(cond["guidance"][i])
        expected = guided_step(teacher, z[i : i + 1], float(t[i]), float(t[i] - 0.25), label, scale)
        torch.testing.assert_close(later[i : i + 1], expected, rtol=0, atol=1e-7)


def test_a_student_trained_briefly_follows_the_exact_guided_flow():
    process, steps = DiscreteVP("cosine"), 4
    teacher = mixture(process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = MLP(process, "v", SHAPE, width=64, depth=2, classes=4, conditions=[SCALE])
    objective = Progressive(steps=steps, guidance="guidance")
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    for number in range(400):
        draws = torch.Generator().manual_seed(number)
        x0 = teacher.draw(128, draws).float()
        labels = torch.randint(4, (128,), generator=draws)
        step = Step(student, student, {"teacher": teacher}, x0, {"class": labels}, {}, draws, number)
        optimizer.zero_grad()
        objective.update_loss(None, step).backward()
        optimizer.step()
    student.eval().requires_grad_(False)
    labels = torch.arange(64) % 4
    found, exact = {}, {}
    for scale in (1.0, 4.0):
        cond = {"class": labels, "guidance": scale}
        drawn = trilemma.sample(student, 64, sampler="ddim", steps=steps, cond=cond, seed=1)
        assert drawn.provenance["nfe"] == steps
        found[scale] = drawn.samples.double()
        exact[scale] = trilemma.sample(
            teacher.eval(),
            64,
            sampler="ddim",
            steps=2 * steps,
            cond={"class": labels},
            guidance=f"cfg:scale={scale}",
            seed=1,
        ).samples.double()
    moved, expected = found[4.0] - found[1.0], exact[4.0] - exact[1.0]
    along = float((moved * expected).sum() / (moved.norm() * expected.norm()))
    assert along > 0.9
    assert 0.7 < float((moved * expected).sum() / expected.square().sum()) < 1.3
    for scale in (1.0, 4.0):
        assert float((found[scale] - exact[scale]).square().mean().sqrt()) < 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "guidance"}, "needs a teacher by name"),
        ({"guidance": "class", "teacher": "mnist"}, "no scalar condition of the student"),
        ({"guidance": "guidance", "teacher": "mnist"}, "is of .* under"),
    ],
)
def test_what_cannot_be_guided_is_refused(options, message, one_line):
    student = Listening(DiscreteVP("cosine"))
    for objective in (Progressive, Consistency):
        with pytest.raises(UsageError, match=message) as caught:
            objective(**options).parts(student)
        assert len(one_line(caught.value)) < 300


def test_consistency_without_a_teacher_has_none_to_guide():
    with pytest.raises(UsageError, match="is that of a teacher; give teacher=NAME"):
        Consistency(teacher="", guidance="guidance").parts(Listening(DiscreteVP("cosine")))


def test_a_teacher_without_a_null_cannot_be_guided(monkeypatch):
    student = Listening(DiscreteVP("cosine"))
    teacher = GaussianMixtureDenoiser(student.process, MEANS[:1], 0.09, None, "v", SHAPE)
    monkeypatch.setattr("trilemma_plugins.distillation.teacher.denoiser_beside", lambda *_: teacher)
    with pytest.raises(UsageError, match="a condition that has a null, and this one has none"):
        teacher_of(student, "one", "guidance")
