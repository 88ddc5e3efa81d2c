"""The kit's checks of processes and guidances, and what it says of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.guidance import Branch, Weighted, towards_condition
from trilemma.testing import check_metric, check_objective, checks, run_checks
from trilemma.testing.broken.objectives import RightLoss
from trilemma.testing.checks import kind_of, run_component
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
    def bind(self, model, cond, times):
        return towards_condition(model, cond, (self.scale, -self.scale))


class Lonely(CFG):
    def bind(self, model, cond, times):
        return towards_condition(model, cond, (1.0,))


class Strange(CFG):
    def bind(self, model, cond, times):
        return Weighted([Branch({**cond, "text": None}, model)], (1.0,))


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
    (result,) = run_checks("model", "mnist")
    assert result.status == "skipped"
    assert list(checks("model", "mnist")) == []


def folder_of_images(root: Path) -> Path:
    root.mkdir()
    chance = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(chance.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(root / f"{k}.png")
    return root


@pytest.mark.parametrize("cache", [0, 64])
@pytest.mark.parametrize("options", ["", ",flip=true", ",flip=true,crops=5", ",mode=L"])
def test_a_folder_of_images_passes(tmp_path, options, cache):
    root = folder_of_images(tmp_path / "photos")
    found = run_checks("dataset", f"images:root='{root}',size=8,cache_mb={cache}{options}")
    assert [record for record in found if record.failed] == []
    assert [record.name for record in found if record.status == "skipped"] == ["splits are apart"]


def test_images_of_two_splits_pass_and_are_apart(tmp_path):
    for split in ("train", "test"):
        folder_of_images(tmp_path / f"photos-{split}")
    spec = f"images:root='{tmp_path}/photos-{{split}}',size=8"
    found = {record.name: record for record in run_checks("dataset", spec)}
    # They are the same images.
    assert [name for name, record in found.items() if record.failed] == ["splits are apart"]


def test_a_data_set_that_is_not_here_is_skipped_and_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    (unnamed,), (absent,) = run_component("dataset", "images"), run_component("dataset", "mnist")
    assert (unnamed.status, absent.status) == ("skipped", "skipped")
    assert "it needs root" in unnamed.reason
    assert "its data are not here" in absent.reason


def test_an_object_of_a_new_kind_is_known_by_its_class():
    specs = [
        lookup.objective("simple"),
        lookup.metric("frechet"),
        lookup.metric("bpd"),
        lookup.metric("mnist-features"),
    ]
    specs.append(lookup.dataset("mixture2d:n=100"))
    kinds = [kind_of(component) for component in specs]
    assert kinds == ["objective", "metric", "metric", "metric", "dataset"]


def test_an_objective_that_refuses_every_model_is_skipped():
    class Refusing(RightLoss):
        def loss(self, *_):
            raise UsageError("not this model")

    found = check_objective(Refusing())
    assert {record.status for record in found[1:]} == {"skipped"}


def test_what_is_none_of_a_kind_says_which_classes_there_are():
    (found,) = check_metric(CFG())
    assert found.failed
    assert found.name == "is a Metric or ModelMetric or PairMetric or FeatureNetwork"
