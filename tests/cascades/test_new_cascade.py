"""`trilemma new-cascade`: one directory of several models, which goes where it is taken."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import trilemma
from trilemma.cli.app import main
from trilemma.models.card import build, read_card, save_model

IMAGE = {"kind": "image", "name": "low", "shape": [1, 4, 4]}
LEVEL = {"kind": "scalar", "name": "low_level", "low": 1.0986, "high": 10.0}


@pytest.fixture
def models(tmp_path):
    """Networks of 4×4 and of 8×8."""
    found = []
    for name, side, told, licence in (("small", 4, [], "MIT"), ("large", 8, [IMAGE, LEVEL], "MIT")):
        options = {"channels": [4], "blocks": 1, "groups": 2, "classes": 3, "conditions": told}
        card = {
            "model": {"name": name, "licence": licence},
            "process": {"spec": "vp:schedule=cosine,T=100"},
            "denoiser": {"spec": "unet", "parameterization": "v", "options": options},
            "data": {"shape": [1, side, side]},
        }
        save_model(tmp_path / "runs" / name, card, build(card, seed=0).state_dict())
        found.append(tmp_path / "runs" / name)
    return found


def made(models, out, *arguments):
    return main(["new-cascade", *map(str, models), "--out", str(out), *arguments])


def test_the_directory_holds_all_its_models(models, tmp_path, capsys):
    out = tmp_path / "both"
    assert (
        made(models, out, "--stage", "1:steps=3", "--stage", "2:noise=0.2,steps=2,sampler=ddim(eta=1)") == 0
    )
    assert "both: 2 stages, " in capsys.readouterr().out
    card = read_card(out)
    assert [table["model"] for table in card["stage"]] == ["small", "large"]
    assert card["model"]["licence"] == "MIT"
    assert all(len(table["sha256"]) == 64 for table in card["stage"])
    shutil.rmtree(tmp_path / "runs")
    moved = shutil.move(out, tmp_path / "elsewhere")
    drawn = trilemma.sample(trilemma.load(moved), 2, cond={"class": 1}, all_stages=True)
    assert drawn.samples.shape == (2, 1, 8, 8)
    first, second = drawn.provenance["stages"]
    assert (first["steps"], second["steps"], second["noise"]) == (3, 2, 0.2)
    assert second["sampler"].startswith("ddim:eta=1")
    again = trilemma.sample(
        trilemma.load(f"{moved}/small"), 2, steps=3, cond={"class": 1}, seed=first["seed"]
    )
    assert torch.equal(again.samples, drawn.stages[0])


def test_what_it_is_measured_with_and_its_name(models, tmp_path, capsys):
    out = tmp_path / "both"
    assert made(models, out, "--name", "digits", "--dataset", "mnist", "--features", "mnist-features") == 0
    card = read_card(out)
    assert card["model"]["name"] == "digits"
    assert card["evaluation"] == {"dataset": "mnist", "features": "mnist-features"}
    capsys.readouterr()
    assert main(["models", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [1, 8, 8]
    assert made(models, out) == 1
    assert "exists; choose another --out, or give --force" in capsys.readouterr().err
    assert made(models, out, "--force") == 0
    assert read_card(out)["model"]["name"] == "both"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stage", "3:steps=2"], "--stage 3: there is no such stage; the cascade has 2"),
        (["--stage", "0:steps=2"], "--stage 0: there is no such stage"),
        (["--stage", "2:nois=0.1"], "unknown option 'nois'; did you mean 'noise'?"),
        (["--stage", "2:noise=loud"], "--stage 2: noise='loud' is not a number"),
        (["--stage", "2:noise=0.9"], "noise=0.9 is beyond what its model was trained with"),
        (["--stage", "1:noise=0.1"], "stage 1: no images come from a stage before it"),
        (["--stage", "2:steps=0"], "stage 2: steps=0"),
        (["--stage", "2:sampler=dimm"], "stage 2: unknown sampler 'dimm'"),
        (["--stage", "2:image=high"], "image='high' is no image condition"),
        (["--stage", "2:clip=1"], "--stage 2: clip=1 is not true or false"),
        (["--stage", "2"], "is not NUMBER:OPTIONS"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(models, tmp_path, arguments, words, capsys):
    assert made(models, tmp_path / "both", *arguments) in (2, 3)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_models_that_do_not_follow_each_other_are_refused(models, tmp_path, capsys):
    small, large = models
    for given, words in (
        ([small], "a cascade has two stages or more"),
        ([small, small], "is no image condition of its model"),
        ([small, "image-features"], "is of kind features, and a stage is a denoiser"),
        ([small, tmp_path / "none"], "is no model directory"),
    ):
        assert made(given, tmp_path / "both") in (1, 2)
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "both").exists()
    # A first stage may be told an image by the request, and two models may have one name.
    assert made([large, large], tmp_path / "both") == 0
    assert [table["model"] for table in read_card(tmp_path / "both")["stage"]] == ["large-1", "large-2"]
