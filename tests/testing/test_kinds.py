"""The kit's checks of processes and guidances, and what it says of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trilemma.testing import checks, run_checks
from trilemma.testing.exact_processes import AngleProcess
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("process", "vp"),
        ("process", "vp:T=1"),
        ("process", "vp:schedule=cosine,T=50"),
        ("process", "vp-continuous"),
        ("process", "vp-continuous:schedule=cosine"),
        ("process", AngleProcess()),
        ("guidance", "cfg:scale=3"),
        ("guidance", "cfg:scale=1"),
    ],
)
def test_what_is_right_passes(kind, spec):
    assert [result for result in run_checks(kind, spec) if result.failed] == []


@dataclass(frozen=True)
class Rising(AngleProcess):
    def moments(self, t):
        return super().moments(1.01 - t)


@dataclass(frozen=True)
class Float32(AngleProcess):
    def moments(self, t):
        mean, cov = super().moments(t)
        return mean.float(), cov.float()


@dataclass(frozen=True)
class Forgetful(DiscreteVP):
    def transition(self, s, t):
        psi, Q = super().transition(s, t)
        return psi, 1.01 * Q


class Late(ContinuousVP):
    def time_of_log_snr(self, log_snr):
        return super().time_of_log_snr(log_snr) + 1e-3


class Still(ContinuousVP):
    def drift(self, t):
        return 0.9 * super().drift(t)


class Heavy(CFG):
    def weights(self, t):
        return (self.scale, -self.scale)


class Lonely(CFG):
    def weights(self, t):
        return (1.0,)


class Strange(CFG):
    def branches(self, cond):
        return [{**cond, "text": None}]


@pytest.mark.parametrize(
    ("kind", "component", "check", "detail"),
    [
        ("process", Rising(), "signal falls into noise", "does not fall"),
        ("process", Float32(), "moments are exact and well-formed", "not float64"),
        ("process", Forgetful(), "transitions carry the moments", "off"),
        ("process", Late(), "time_of_log_snr inverts log_snr", "away from t"),
        ("process", Still(), "drift and diffusion carry the moments", "off"),
        ("guidance", Heavy(), "weights are one a branch and sum to 1", "sum to 0"),
        ("guidance", Heavy(), "branches that agree are left alone", "samples move"),
        ("guidance", Lonely(), "weights are one a branch and sum to 1", "1 weights for 2 branches"),
        ("guidance", Strange(), "branches name the model's conditions", "['text']"),
        ("sampler", CFG(), "is a Sampler", "CFG does not derive from trilemma.Sampler"),
    ],
)
def test_what_is_wrong_fails(kind, component, check, detail):
    found = {result.name: result for result in run_checks(kind, component)}
    assert found[check].failed
    assert detail in found[check].reason


def test_checks_are_pairs_of_a_name_and_a_callable():
    for _, check in checks("guidance", "cfg"):
        assert isinstance(check(), str)


def test_a_kind_without_checks_says_so():
    (result,) = run_checks("metric", "frechet")
    assert result.status == "skipped"
    assert list(checks("metric", "frechet")) == []
