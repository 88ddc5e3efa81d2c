"""What a model is drawn with where nothing else is asked for."""

import pytest
import torch

from trilemma import invert, lookup, sample
from trilemma.errors import ModelError, UsageError
from trilemma.interfaces.guidance import Unguided
from trilemma.models.card import load_model, save_model
from trilemma.registry import building
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.train import read_recipe

RECIPE = """
steps = 1
[dataset]
spec = "mnist"
[process]
spec = "cld"
[denoiser]
spec = "cld"
[objective]
spec = "hsm"
"""


def test_the_card_s_sampler_is_used():
    model = GaussianMixtureDenoiser(PhaseProcess())
    model.card = {"process": {"spec": "phase"}, "sampling": {"sampler": "euler-maruyama"}}
    model.card |= {"model": {"name": "m"}, "weights": {"sha256": "0"}}
    assert model.usual_sampler == "euler-maruyama"
    default = sample(model, 2, steps=5).samples
    assert torch.equal(default, sample(model, 2, sampler="euler-maruyama", steps=5).samples)


def test_the_card_s_number_of_steps_is_used():
    model = GaussianMixtureDenoiser(lookup.process("vp"))
    assert sample(model, 1).provenance["steps"] == 50
    model.card = {"process": {"spec": "vp"}, "sampling": {"steps": 7}}
    model.card |= {"model": {"name": "m"}, "weights": {"sha256": "0"}}
    assert sample(model, 1).provenance["steps"] == 7
    assert sample(model, 1, steps=3).provenance["steps"] == 3
    start = torch.zeros(1, *model.shape)
    assert invert(model, start, sampler="ddim").provenance["steps"] == 7


def _guided():
    """A model of two classes whose card names a guidance."""
    model = GaussianMixtureDenoiser(lookup.process("vp"))
    model.card = {"process": {"spec": "vp"}, "sampling": {"guidance": "cfg:scale=3"}}
    model.card |= {"model": {"name": "m"}, "weights": {"sha256": "0"}}
    return model


def test_the_card_s_guidance_is_used_under_a_condition():
    model, cond = _guided(), {"class": [0, 1]}
    drawn = sample(model, 4, cond=cond, steps=5)
    asked = sample(model, 4, cond=cond, steps=5, guidance="cfg:scale=3")
    assert torch.equal(drawn.samples, asked.samples)
    assert drawn.provenance["guidance"] == asked.provenance["guidance"]
    assert drawn.provenance["nfe"] == 10


@pytest.mark.parametrize("cond", [None, {}, {"class": None}])
def test_the_card_s_guidance_needs_something_to_guide_to(cond):
    assert sample(_guided(), 2, cond=cond, steps=5).provenance["guidance"] is None


@pytest.mark.parametrize("guidance", ["cfg:scale=1", Unguided()])
def test_the_card_s_guidance_is_turned_off(guidance):
    model, cond = _guided(), {"class": [0, 1]}
    drawn = sample(model, 4, cond=cond, steps=5, guidance=guidance)
    assert drawn.provenance["nfe"] == 5
    model.card["sampling"] = {}
    assert torch.equal(drawn.samples, sample(model, 4, cond=cond, steps=5).samples)


@pytest.mark.parametrize(
    "process",
    [lookup.process("vp"), lookup.process("cld"), PhaseProcess()],
    ids=lambda made: type(made).__name__,
)
def test_a_sampler_that_runs_on_the_process_stands_in(process):
    model = GaussianMixtureDenoiser(process)
    assert model.usual_sampler is None
    drawn = sample(model, 2, steps=3)
    assert bool(drawn.samples.isfinite().all())


def test_a_process_on_which_no_default_runs_is_told_so(monkeypatch):
    monkeypatch.setattr(building, "default_samplers", lambda: ["ddim"])
    with pytest.raises(
        UsageError, match=r"no sampler that stands in .* 2 components of PhaseProcess; give sampler="
    ):
        sample(GaussianMixtureDenoiser(PhaseProcess()), 2, steps=3)


def test_a_recipe_names_it_beside_what_the_weights_depend_on(tmp_path):
    (tmp_path / "a.toml").write_text(RECIPE)
    (tmp_path / "b.toml").write_text(RECIPE + '[sampling]\nsampler = "gddim"\n')
    without, named = read_recipe(tmp_path / "a.toml"), read_recipe(tmp_path / "b.toml")
    assert named.sampling.sampler == "gddim"
    assert named.fingerprint() == without.fingerprint()


def test_a_card_with_another_key_is_refused(tmp_path):
    card = {
        "model": {"name": "m"},
        "process": {"spec": "cld"},
        "denoiser": {"spec": "unet", "parameterization": "eps"},
        "data": {"shape": [1, 8, 8]},
        "sampling": {"smapler": "gddim"},
    }
    save_model(tmp_path / "m", card, {})
    with pytest.raises(ModelError, match=r"did you mean 'sampling\.sampler'"):
        load_model(tmp_path / "m")
