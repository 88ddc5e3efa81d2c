"""The simple losses against their definitions in x₀."""

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.numerics.conversion import convert
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.objectives.simple import Simple


class Constant(Denoiser):
    """Answers every question with one number; remembers the conditions."""

    def __init__(self, process, parameterization, null=3):
        conditions = [ClassCondition("class", size=3, null=null)]
        super().__init__(process, parameterization, (1, 4, 4), conditions)

    def forward(self, z, t, **cond):
        self.seen = (z, t, cond)
        return torch.full_like(z, 0.3)


def run(objective, net, batch=64):
    x0 = torch.randn(batch, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.zeros(batch, dtype=torch.int64)
    loss = objective.loss(net, net, x0, {"class": labels}, torch.Generator().manual_seed(2))
    z, t, cond = net.seen
    return x0, loss, z, t.double(), cond


@pytest.mark.parametrize("parameterization", ["x0", "eps", "v", "score"])
@pytest.mark.parametrize(
    ("weighting", "snr_weight"),
    [
        ("truncated-snr", lambda snr: snr.clamp_min(1)),
        ("min-snr", lambda snr: snr.clamp_max(5)),
    ],
)
def test_weightings_are_those_of_the_papers_in_x0(parameterization, weighting, snr_weight):
    process = DiscreteVP(schedule="cosine")
    net = Constant(process, parameterization)
    x0, loss, z, t, _ = run(Simple(weighting=weighting), net)
    alpha, sigma = process.scales(t, x0)
    p, q = convert(parameterization, "x0", alpha, sigma)
    residual = (p * z + q * 0.3 - x0).square()
    weight = snr_weight((alpha / sigma).square())
    torch.testing.assert_close(loss, (weight * residual).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("parameterization", ["x0", "eps", "v"])
@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_uniform_weighting_is_the_plain_error_of_the_target(parameterization, target):
    process = ContinuousVP()
    net = Constant(process, parameterization)
    x0, loss, z, t, _ = run(Simple(target=target), net)
    alpha, sigma = process.scales(t, x0)
    p, q = convert(parameterization, target, alpha, sigma)
    p0, q0 = convert("x0", target, alpha, sigma)
    expected = (p * z + q * 0.3 - (p0 * z + q0 * x0)).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-6)


def test_stratified_times_fill_the_table_evenly():
    process = DiscreteVP(T=10)
    t = Simple().draw_times(process, 20, torch.Generator().manual_seed(0))
    index = (t * 10).round().long()
    assert torch.bincount(index, minlength=11).tolist() == [0] + [2] * 10


def test_drop_replaces_about_that_share_by_the_null_class():
    _, _, _, _, cond = run(Simple(drop=0.25), Constant(DiscreteVP(), "v"), batch=4000)
    share = (cond["class"] == 3).double().mean()
    assert abs(float(share) - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_the_same_generator_gives_the_same_loss():
    net = Constant(DiscreteVP(), "v")
    assert run(Simple(drop=0.1), net)[1] == run(Simple(drop=0.1), net)[1]


def test_drop_without_a_null_class_is_refused():
    with pytest.raises(UsageError, match="has no null"):
        run(Simple(drop=0.1), Constant(DiscreteVP(), "v", null=None))


@pytest.mark.parametrize("options", [{"weighting": "snr"}, {"drop": 1.5}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError):
        Simple(**options)
