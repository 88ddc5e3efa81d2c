"""The conformance kit passes what is right and fails every false declaration."""

from dataclasses import dataclass, replace

import pytest
import torch

from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing import check_sampler, run_checks
from trilemma.testing.law import sample_law
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method in the angle of (α, σ): an Euler stage, then the mean of both slopes from the same base."""

    order = 2
    deterministic = True

    def nfe(self, steps):
        return 2 * steps - 1

    def plan(self, process, times):
        alpha, sigma = process.alpha_sigma(times)
        angles, radius = torch.atan2(sigma, alpha).tolist(), torch.hypot(alpha, sigma).tolist()
        t = times.tolist()
        rows = []
        for k in range(len(t) - 1):
            h, r = angles[k + 1] - angles[k], radius[k + 1] / radius[k]
            rows.append(Row(t[k], A=r, B=((0, r * h),)))
            if t[k + 1] > 0:
                rows.append(Row(t[k + 1], A=r, B=((0, h / 2), (1, r * h / 2)), base=1))
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
    assert [record for record in check_sampler(sampler) if record.failed] == []


@pytest.mark.parametrize(
    ("sampler", "check", "detail"),
    [
        (Boastful(), "order on a mixture", "declares order 2, measured"),
        (Secretive(eta=1.0), "noise as declared", "adds noise"),
        (Blind(), "times fall strictly to 0", "1 steps gave 1 times, not 2"),
        (Spendthrift(), "plan pays its nfe", "nfe says 2"),
        (Broken(), "plan is finite", "ZeroDivisionError"),
        (Restless(), "same bits again and in every batch", "other samples"),
    ],
)
def test_a_false_declaration_fails(sampler, check, detail):
    found = {result.name: result for result in run_checks("sampler", sampler)}
    assert found[check].failed
    assert detail in found[check].reason


class Biased(DDIM):
    """Drifts: its steps are those of another x̂₀."""

    def plan(self, process, times):
        tableau = super().plan(process, times)
        rows = [replace(row, B=((0, row.B[0][1] * 1.1),)) for row in tableau.rows]
        return replace(tableau, rows=tuple(rows))


class Loud(DDIM):
    """Adds the right noise twice."""

    deterministic = False

    def plan(self, process, times):
        tableau = super().plan(process, times)
        return replace(tableau, rows=tuple(replace(row, C=2 * row.C) for row in tableau.rows))


@pytest.mark.parametrize(
    ("sampler", "check"), [(Biased(), "a point mass is found"), (Loud(eta=1.0), "weak order")]
)
def test_a_sampler_that_misses_the_data_fails(sampler, check):
    found = {result.name: result for result in run_checks("sampler", sampler)}
    assert found[check].failed


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "leading", "trailing", "linspace"])
def test_every_grid_passes(grid):
    assert [record for record in check_sampler(DDIM(grid=grid, clip=1.0)) if record.failed] == []


def test_the_law_of_ddpm_on_gaussian_data_is_the_known_one():
    process = DiscreteVP()
    for eta, expected in ((0.0, 0.18813), (1.0, 0.15324)):
        sampler = DDIM(eta=eta, grid="uniform")
        times = sampler.times(process, 20)
        mean, variance = sample_law(sampler.plan(process, times), process, 0.0, 0.25)
        start = process.alpha(times[0]) ** 2 * 0.25 + process.sigma(times[0]) ** 2
        # The known numbers start from variance 1; at eta = 0 the variance scales with that of the start.
        if eta == 0:
            variance /= float(start)
        assert mean == 0
        assert variance == pytest.approx(expected, abs=5e-6 if eta == 0 else 2e-4)
