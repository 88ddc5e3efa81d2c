"""`trilemma.energy`: the logarithm of a density, up to a constant, of a model whose answer is a gradient."""

from __future__ import annotations

import math

import pytest
import torch

import trilemma
from trilemma import Denoiser, gradient_of
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.numerics.conversion import PARAMETERIZATIONS, convert
from trilemma.testing.exact_processes import AngleProcess


class Ring(Denoiser):
    """The exact energy of four normals on a ring, in any parameterization; class k is the k-th alone."""

    gradient = True

    def __init__(self, parameterization: str) -> None:
        classes = ClassCondition("class", size=4, null=4)
        super().__init__(AngleProcess(), parameterization, (2, 1, 1), [classes])
        angle = torch.arange(4, dtype=torch.float64) * math.pi / 2
        self.centres = 0.6 * torch.stack([angle.cos(), angle.sin()], 1)

    def log_law(self, z, t, label):
        alpha, sigma = (level[:, None] for level in self.process.alpha_sigma(t.double()))
        off = z.flatten(1)[:, None] - alpha[..., None] * self.centres
        logits = -off.square().sum(-1) / (2 * (alpha**2 * 0.09 + sigma**2))
        one = torch.arange(4) == label[:, None]
        return logits.masked_fill(~(one | (label == 4)[:, None]), -math.inf).logsumexp(1)

    def energy(self, z, t, **cond):
        p, q = convert(self.parameterization, "score", *self.process.alpha_sigma(t.double()))
        return (self.log_law(z, t, cond["class"]) - p * z.square().flatten(1).sum(1) / 2) / q

    def forward(self, z, t, **cond):
        return gradient_of(lambda state: self.energy(state, t, **cond), z)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_it_is_the_law_and_its_gradient_the_score(parameterization):
    model = Ring(parameterization)
    z = torch.randn(
        6, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    found = trilemma.energy(model, z, t)
    assert found.shape == (6,)
    expected = model.log_law(z, t, torch.full((6,), 4))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    (score,) = torch.autograd.grad(found.sum(), z)
    p, q = (c.view(-1, 1, 1, 1) for c in convert(parameterization, "score", *model.process.alpha_sigma(t)))
    answer = model(z.detach(), t, **{"class": torch.full((6,), 4)})
    torch.testing.assert_close(score, p * z.detach() + q * answer, rtol=1e-8, atol=1e-8)


def test_the_density_on_a_grid():
    """e^F over its sum is the law of the data, and that of one class under a condition."""
    side = torch.linspace(-2, 2, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).view(-1, 2, 1, 1)
    model = Ring("eps")
    for cond, label in (({}, 4), ({"class": 2}, 2)):
        found = trilemma.energy(model, grid, 0.01, cond).log_softmax(0)
        alpha, sigma = (
            float(c) for c in model.process.alpha_sigma(torch.tensor([0.01], dtype=torch.float64))
        )
        off = torch.cdist(grid.flatten(1), alpha * model.centres).square() / (
            2 * (alpha**2 * 0.09 + sigma**2)
        )
        of_modes = (-off).exp()
        law = of_modes.sum(1) if label == 4 else of_modes[:, label]
        law = law / law.sum()
        assert float((law * (law.clamp_min(1e-300).log() - found)).sum()) == pytest.approx(0, abs=1e-9)


def test_the_earliest_time_is_the_default():
    model, z = Ring("v"), torch.zeros(3, 2, 1, 1, dtype=torch.float64)
    assert torch.equal(trilemma.energy(model, z), trilemma.energy(model, z, model.process.earliest_time))


def test_it_needs_no_gradients_and_leaves_inference_mode_alone():
    model, z = Ring("eps"), torch.zeros(3, 2, 1, 1, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(trilemma.energy(model, z, 0.5), trilemma.energy(model, z, 0.5))


@pytest.mark.parametrize(
    ("x", "t", "cond", "message"),
    [
        (torch.zeros(3, 1, 1, 1), 0.5, None, r"states of shape \(3, 1, 1, 1\) are none of this model"),
        (torch.zeros(3, 2, 1, 1), 0.0, None, "is no time of 3 states"),
        (torch.zeros(3, 2, 1, 1), torch.full((2,), 0.5), None, "is no time of 3 states"),
        (torch.zeros(3, 2, 1, 1), 0.5, {"class": 7}, "class=7"),
        (torch.zeros(3, 2, 1, 1), 0.5, {"colour": 7}, "unknown condition 'colour'"),
    ],
)
def test_what_it_cannot_take_is_refused_in_one_line(x, t, cond, message):
    with pytest.raises(UsageError, match=message) as caught:
        trilemma.energy(Ring("eps"), x, t, cond)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_model_without_an_energy_is_refused():
    with pytest.raises(UsageError, match="has no energy: its answer is no gradient") as caught:
        trilemma.energy("mnist", torch.zeros(1, 1, 28, 28), 0.5)
    assert "\n" not in str(caught.value)
