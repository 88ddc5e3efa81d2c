"""The conformance kit passes what is right and fails every false declaration."""

from dataclasses import dataclass

import pytest
import torch

from trilemma.sampler import Sampler
from trilemma.tableau import Row, Tableau
from trilemma.testing import check_sampler, run_checks
from trilemma_plugins.ddim.sampler import DDIM


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method in the angle of (α, σ): an Euler stage, then the mean of both slopes from the same base."""

    order = 2
    deterministic = True

    def nfe(self, steps):
        return 2 * steps - 1

    def plan(self, process, times):
        angles = torch.atan2(process.sigma(times), process.alpha(times)).tolist()
        t = times.tolist()
        rows = []
        for k in range(len(t) - 1):
            h = angles[k + 1] - angles[k]
            rows.append(Row(t[k], A=1.0, B=((0, h),)))
            if t[k + 1] > 0:
                rows.append(Row(t[k + 1], A=1.0, B=((0, h / 2), (1, h / 2)), base=1))
        return Tableau(tuple(rows), "v")


class Boastful(DDIM):
    order = 2


class Secretive(DDIM):
    deterministic = True


class Blind(DDIM):
    def times(self, process, steps):
        return super().times(process, steps)[:-1]


class Spendthrift(DDIM):
    def nfe(self, steps):
        return steps + 1


class Broken(DDIM):
    def plan(self, process, times):
        raise ZeroDivisionError("oh")


class Restless(DDIM):
    def sample(self, predict, z, times, noise, report):
        return predict(z, float(times[0])) + torch.rand(())


@pytest.mark.parametrize(
    "sampler", ["ddim", "ddim:eta=0.5,grid=linspace", "ddpm", "ddpm:variance=large", Heun()]
)
def test_what_is_right_passes(sampler):
    check_sampler(sampler)


@pytest.mark.parametrize(
    ("sampler", "check", "detail"),
    [
        (Boastful(), "order as declared", "declares order 2, measured 0.99"),
        (Secretive(eta=1.0), "noise as declared", "adds noise"),
        (Blind(), "times fall strictly to 0", "1 steps gave 1 times, not 2"),
        (Spendthrift(), "plan is finite and pays its nfe", "nfe says 2"),
        (Broken(), "plan is finite and pays its nfe", "ZeroDivisionError"),
        (Restless(), "samples are reproducible", "other samples"),
    ],
)
def test_a_false_declaration_fails(sampler, check, detail):
    found = {result.check: result for result in run_checks("sampler", sampler)}
    assert found[check].failed
    assert detail in found[check].detail
    with pytest.raises(AssertionError, match=check):
        check_sampler(sampler)


def test_a_kind_without_checks_says_so():
    (result,) = run_checks("guidance", "cfg")
    assert result.status == "skipped"
