"""Adaptive Runge–Kutta: its pairs, its control, and samples that know nothing of each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import trilemma
from trilemma import lookup
from trilemma.errors import TrilemmaError, UsageError
from trilemma.numerics import runge_kutta
from trilemma.testing import GaussianMixtureDenoiser
from trilemma.testing.exact_processes import AngleProcess

MIXTURE = GaussianMixtureDenoiser(AngleProcess(), (-1.0, 0.2, 1.1), (0.04, 0.12, 0.06), (0.3, 0.3, 0.4))


def drawn(spec="rk:tolerance=1e-6", n=6, model=MIXTURE, **options):
    return trilemma.sample(model, n, sampler=spec, steps=10, seed=3, dtype=torch.float64, **options)


@pytest.mark.parametrize("name", runge_kutta.PAIRS)
def test_the_pairs_integrate_polynomials(name):
    """Σ b_i c_iᵏ = 1/(k+1) up to the order, and the comparison's up to its own, which is one lower."""
    pair = runge_kutta.PAIRS[name]
    weights = (*pair.stages[-1], 0.0)
    assert [sum(line) for line in pair.stages] == pytest.approx(pair.nodes[1:])
    for k in range(pair.order):
        assert sum(b * c**k for b, c in zip(weights, pair.nodes, strict=True)) == pytest.approx(1 / (k + 1))
    for k in range(pair.order - 1):
        assert sum(e * c**k for e, c in zip(pair.error, pair.nodes, strict=True)) == pytest.approx(
            0, abs=1e-15
        )
    missed = sum(e * c ** (pair.order - 1) for e, c in zip(pair.error, pair.nodes, strict=True))
    assert abs(missed) > 1e-5


@pytest.mark.parametrize("name", runge_kutta.PAIRS)
def test_the_pairs_have_their_order(name):
    """One step of size h of y' = y² is h^(order + 1) off its solution 1/(1 − t)."""
    pair = runge_kutta.PAIRS[name]

    def error(h):
        y, slopes = torch.ones((), dtype=torch.float64), []
        slopes.append(y**2)
        for line in pair.stages:
            reached = y + h * runge_kutta.combined(line, slopes)
            slopes.append(reached**2)
        return abs(float(reached) - 1 / (1 - h))

    assert math.log2(error(0.02) / error(0.01)) == pytest.approx(pair.order + 1, abs=0.5)


@pytest.mark.parametrize("process", ["vp", "vp-continuous", "sub-vp", "ve", "edm", "flow"])
def test_it_follows_the_flow_of_every_process(process):
    """Two pairs at two tolerances, which share no coefficient, end in the same place."""
    model = GaussianMixtureDenoiser(
        lookup.build("process", process)[0], (-1.0, 0.2, 1.1), (0.04, 0.12, 0.06), (0.3, 0.3, 0.4)
    )
    fine = drawn("rk:tolerance=1e-8", model=model).samples
    for spec in ("rk:tolerance=1e-5", "rk:tolerance=1e-5,pair=bosh3"):
        assert float((drawn(spec, model=model).samples - fine).abs().max()) < 2e-3


def test_a_smaller_tolerance_costs_more():
    costs = [drawn(f"rk:tolerance={tolerance}").provenance["nfe"] for tolerance in (1e-2, 1e-4, 1e-7)]
    assert costs == sorted(set(costs))


def test_steps_are_rejected_where_the_guess_is_too_long():
    """One step from the prior to the data is too long a guess, and harms nothing."""
    careful, bold = (
        trilemma.sample(MIXTURE, 4, sampler="rk:tolerance=1e-8", steps=steps, seed=3, dtype=torch.float64)
        for steps in (60, 1)
    )
    assert float((careful.samples - bold.samples).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("guidance", "off"),
    [("cfg:scale=3", 1e-10), ("cfg:scale=3+interval:lo=0.2,hi=0.7", 1e-4)],
)
def test_a_sample_takes_its_own_steps(guidance, off):
    """Guidance included, whose weight depends on the time each sample is at.

    Where the weight jumps, rounding decides which step is refused; what is left is an error of the tolerance's size.
    """
    options = {"guidance": guidance, "cond": {"class": 1}}
    together = drawn(**options)
    alone = torch.cat([drawn(indices=[i], **options).samples for i in range(6)])
    assert float((together.samples - alone).abs().max()) < off
    assert not torch.equal(together.samples, drawn(cond={"class": 1}).samples)
    assert together.provenance["nfe"] > drawn(cond={"class": 1}).provenance["nfe"]


def test_guidance_at_its_neutral_scale_is_none():
    guided = drawn(guidance="cfg:scale=1", cond={"class": 1})
    plain = drawn(cond={"class": 1})
    assert torch.equal(guided.samples, plain.samples)
    assert guided.provenance["nfe"] == plain.provenance["nfe"]


def test_it_reports_times_that_fall_to_the_data():
    seen = []
    drawn(callback=lambda step, steps, t, state: seen.append((step, t)))
    steps, times = zip(*seen, strict=True)
    assert list(steps) == sorted(set(steps))
    assert all(a >= b for a, b in itertools.pairwise(times))
    assert times[-1] == 0


@pytest.mark.parametrize("process", ["vp", "vp-continuous", "ve", "edm", "flow"])
def test_inversion_goes_the_same_way_up(process):
    """To the tolerance; the last step onto the data is the same in both ways."""
    model = GaussianMixtureDenoiser(
        lookup.build("process", process)[0], (-1.0, 0.2, 1.1), (0.04, 0.12, 0.06), (0.3, 0.3, 0.4)
    )
    x = torch.tensor([-1.2, -0.4, 0.3, 1.0], dtype=torch.float64).view(-1, 1, 1, 1)
    options = {"sampler": "rk:tolerance=1e-8", "steps": 10, "dtype": torch.float64}
    latent = trilemma.invert(model, x, refine=8, **options)
    assert float(latent.samples.abs().max()) > 0.5
    again = trilemma.sample(model, latent=latent.samples, **options)
    assert float((again.samples - x).abs().max()) < 1e-5
    loose = trilemma.invert(model, x, refine=8, **{**options, "sampler": "rk:tolerance=1e-2"})
    assert loose.provenance["nfe"] < latent.provenance["nfe"]


def test_what_never_arrives_is_named(monkeypatch):
    monkeypatch.setattr(runge_kutta, "ATTEMPTS", 3)
    with pytest.raises(TrilemmaError, match="did not arrive in 3 steps at tolerance 1e-06"):
        drawn()


@pytest.mark.parametrize("spec", ["rk:tolerance=0.0", "rk:tolerance=nan", "rk:pair=rk4"])
def test_options_out_of_range(spec):
    with pytest.raises(UsageError):
        lookup.build("sampler", spec)
