"""Modifiers and sums of guidances."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.errors import UsageError
from trilemma.guiding.sums import Sum
from trilemma.registry.spec import split_sum
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.guidances.apg import APG
from trilemma_plugins.guidances.autoguidance import Autoguidance
from trilemma_plugins.guidances.interval import Interval
from trilemma_plugins.guidances.rescale import Rescale
from trilemma_plugins.guidances.schedule import Schedule

COND = {"class": 0}


@pytest.fixture(scope="module")
def process():
    return DiscreteVP(schedule="cosine", T=100)


@pytest.fixture
def model(process):
    return GaussianDenoiser(process, [0.5, -0.2], 0.04, "v", (1, 2, 2))


def draw(model, guidance, n=3, steps=10, **more):
    settings = {"sampler": DDIM(), "cond": COND, "dtype": torch.float64, **more}
    return trilemma.sample(model, n, guidance=guidance, steps=steps, **settings)


def test_a_sum_is_cut_at_names_alone():
    assert split_sum("cfg:scale=3+interval:lo=0.2") == ["cfg:scale=3", "interval:lo=0.2"]
    assert split_sum("cfg:scale=1e+3") == ["cfg:scale=1e+3"]
    assert split_sum("a:x=(+1,2)+b:y='p+q'") == ["a:x=(+1,2)", "b:y='p+q'"]
    for text in ("cfg+", "+cfg", "cfg++interval"):
        with pytest.raises(UsageError) as error:
            trilemma.guidance(text)
        assert "\n" not in str(error.value)


def test_a_spec_means_the_objects(model):
    spec = draw(model, "cfg:scale=3+interval:lo=0.2,hi=0.7")
    objects = draw(model, Interval(0.2, 0.7, guidance=CFG(3.0)))
    assert torch.equal(spec.samples, objects.samples)
    assert spec.provenance["guidance"] == "cfg:scale=3.0+interval:lo=0.2,hi=0.7"
    again = draw(model, spec.provenance["guidance"])
    assert torch.equal(spec.samples, again.samples)


def test_an_interval_that_covers_everything_is_plain_and_one_that_covers_nothing_is_unguided(model):
    plain, everywhere = draw(model, CFG(3.0)), draw(model, "cfg:scale=3+interval")
    assert torch.equal(plain.samples, everywhere.samples)
    assert plain.provenance["nfe"] == everywhere.provenance["nfe"] == 20
    unguided, nowhere = draw(model, None), draw(model, "cfg:scale=3+interval:lo=0.001,hi=0.002")
    assert torch.equal(unguided.samples, nowhere.samples)
    assert unguided.provenance["nfe"] == nowhere.provenance["nfe"] == 10


@pytest.mark.parametrize("guidance", [CFG(3.0), APG(3.0, eta=0.5)])
def test_outside_of_its_interval_a_guidance_costs_nothing(model, guidance):
    times = DDIM().times(model.process, 10)[:-1]
    inside = int(((times >= 0.25) & (times <= 0.65)).sum())
    drawn = draw(model, Interval(0.25, 0.65, guidance=guidance))
    assert 0 < inside < 10
    assert drawn.provenance["nfe"] == 10 + inside
    evaluations = []
    model.register_forward_hook(lambda *call: evaluations.append(len(call[1][0])))
    draw(model, Interval(0.25, 0.65, guidance=guidance))
    assert sum(evaluations) == 3 * (10 + inside)


def bound(guidance, model):
    return guidance.bind(model, COND, torch.linspace(1, 0, 11, dtype=torch.float64))


def test_a_schedule_interpolates_the_scale(model):
    guidance = Schedule(0.5, 2.0, guidance=CFG(3.0))
    for t in (0.0, 0.3, 1.0):
        wanted = bound(CFG(1 + (2.0 - 1.5 * t) * 2), model).weights(t)
        assert bound(guidance, model).weights(t) == pytest.approx(wanted)
    cosine = Schedule(0.0, 1.0, "cosine", guidance=CFG(3.0))
    assert bound(cosine, model).weights(0.5) == pytest.approx(bound(CFG(2.0), model).weights(0.5))
    constant = Schedule(1.0, 1.0, guidance=CFG(3.0))
    assert bound(constant, model).weights(0.4) == (3.0, -2.0)


def test_rescale_keeps_the_spread_of_each_sample(model):
    guidance = bound(Rescale(1.0, guidance=CFG(3.0)), model)
    generator = torch.Generator().manual_seed(0)
    predictions = [torch.randn(4, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    z = torch.zeros_like(predictions[0])
    combined = guidance.combine(z, 0.5, predictions, {})
    guided = 3 * predictions[0] - 2 * predictions[1]
    factor = predictions[0].flatten(1).std(1) / guided.flatten(1).std(1)
    assert torch.allclose(combined, guided * factor.view(-1, 1, 1, 1), atol=1e-12)
    half = bound(Rescale(0.5, guidance=CFG(3.0)), model).combine(z, 0.5, predictions, {})
    assert torch.allclose(half, (guided + combined) / 2, atol=1e-12)
    alone = guidance.combine(z[1:2], 0.5, [p[1:2] for p in predictions], {})
    assert torch.equal(alone, combined[1:2])


def test_rescale_of_nothing_changes_nothing(model):
    assert torch.equal(draw(model, "cfg:scale=1+rescale").samples, draw(model, None).samples)
    assert torch.equal(draw(model, "cfg:scale=3+rescale:phi=0").samples, draw(model, CFG(3.0)).samples)


def test_a_sum_adds_corrections(model):
    """With the model as its own weaker version the second correction is nothing."""
    both = draw(model, Sum((CFG(3.0), Autoguidance(model, 2.0))))
    assert torch.allclose(both.samples, draw(model, CFG(3.0)).samples, atol=1e-12)
    assert both.provenance["nfe"] == 30
    assert bound(Sum((CFG(3.0), CFG(2.0))), model).weights(0.5) == (4.0, -2.0, -1.0)
    mixed = draw(model, Sum((CFG(2.0), APG(2.0, eta=1.0))))
    assert torch.allclose(mixed.samples, draw(model, CFG(3.0)).samples, atol=1e-9)
    part = draw(
        model, Sum((Interval(0.5, 1.0, guidance=CFG(2.0)), Interval(0.5, 1.0, guidance=APG(2.0, 1.0))))
    )
    whole = draw(model, Interval(0.5, 1.0, guidance=CFG(3.0)))
    assert torch.allclose(part.samples, whole.samples, atol=1e-9)
    assert part.provenance["nfe"] < 30


def test_a_modifier_acts_on_what_stands_to_its_left():
    made = trilemma.guidance("cfg:scale=3+interval:lo=0.5+apg:scale=2+schedule")
    assert isinstance(made, Sum)
    first, second = made.parts
    assert isinstance(first, Interval)
    assert first.guidance == CFG(3.0)
    assert isinstance(second, Schedule)
    assert second.guidance == APG(2.0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("interval:lo=0.2+cfg", "to its left"),
        ("interval:lo=0.2", "has none"),
        ("cfg+interval:lo=0.8,hi=0.2", "lo <= hi"),
        ("cfg+schedule:shape=square", "shape"),
        ("cfg+rescale:phi=2", "phi"),
        ("cfg+nothing", "nothing"),
        ("apg:scale=inf", "scale"),
        ("cfgpp:scale=2", "scale"),
        ("autoguidance", "weaker model"),
        ("perturbed-attention", "no self-attention"),
    ],
)
def test_bad_compositions_are_refused_in_one_line(model, spec, words):
    with pytest.raises(trilemma.TrilemmaError, match=words) as error:
        draw(model, spec)
    assert "\n" not in str(error.value)
