"""Recipes of several stages."""

from __future__ import annotations

import pytest
import torch

import trilemma
from trilemma.cli.app import main
from trilemma.errors import UsageError
from trilemma.train.recipe import read_recipe
from trilemma.train.stages import read_stages, train_stages
from trilemma.train.trainer import train

STAGES = """
[[stage]]
name = "first"
steps = 4

[[stage]]
name = "second"
steps = 3
objective = { spec = "simple:drop=0.5" }
summary = "made of {first}"
licence = "Apache-2.0"
"""


@pytest.fixture
def staged(tiny_recipe):
    path = tiny_recipe.with_name("staged.toml")
    path.write_text(tiny_recipe.read_text() + STAGES)
    return path


def test_each_stage_begins_with_the_model_of_the_one_before(staged, tiny_recipe, tmp_path):
    out = tmp_path / "staged"
    first, second = train_stages(read_stages(staged), out)
    one = train(read_recipe(tiny_recipe, ["name=first", "steps=4"]), tmp_path / "one")
    overrides = ["name=second", "steps=3", "objective.spec='simple:drop=0.5'", f"start='{one.model}'"]
    two = train(read_recipe(tiny_recipe, overrides), tmp_path / "two")
    for found, expected in ((first, one), (second, two)):
        there, wanted = (trilemma.load(result.model).state_dict() for result in (found, expected))
        assert all(torch.equal(there[name], wanted[name]) for name in wanted)
    card = trilemma.load(second.model).card
    assert card["model"]["summary"] == f"made of {out / 'first' / 'model'}"
    assert card["model"]["licence"] == "Apache-2.0"
    assert card["provenance"]["start"] == "first"


def test_values_are_merged_table_by_table_and_overrides_reach_every_stage(staged):
    first, second = read_stages(staged, ["optimizer.lr=0.5", "batch_size=4"])
    made = second.recipe({"first": staged}, staged)
    assert made.optimizer.lr == 0.5
    assert made.optimizer.warmup == 4
    assert made.objective.spec == "simple:drop=0.5"
    assert made.start == str(staged)
    assert first.recipe({}).start is None
    assert first.recipe({}).batch_size == 4


def test_the_command_trains_all_and_goes_on_where_it_was(staged, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["train", str(staged), "--out", str(out), "--no-progress", "--json"]
    assert main(command) == 0
    assert f'"{out / "second" / "model"}"' in capsys.readouterr().out
    log = (out / "first" / "log.jsonl").read_bytes()
    assert main(command) == 0
    assert (out / "first" / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("\nstage = 3\n", "no array of tables"),
        ("\n[[stage]]\nsteps = 3\n", "give each stage a name"),
        ('\n[[stage]]\nname = "a"\n[[stage]]\nname = "a"\n', "give each stage a name"),
    ],
)
def test_stages_without_names_are_refused(tiny_recipe, stages, words):
    text = tiny_recipe.read_text()
    path = tiny_recipe.with_name("bad.toml")
    path.write_text(stages + text if stages.startswith("\nstage") else text + stages)
    with pytest.raises(UsageError, match=words):
        read_stages(path)


def test_a_bad_stage_is_refused_before_the_first_is_trained(staged, tmp_path):
    staged.write_text(staged.read_text() + '\n[[stage]]\nname = "third"\nsteps = 0\n')
    with pytest.raises(UsageError, match="steps"):
        train_stages(read_stages(staged), tmp_path / "out")
    assert not (tmp_path / "out").exists()


KINDS = """
steps = 1
batch_size = 8
tensorboard = false
dataset = { spec = "digits" }

[[stage]]
name = "codes"
autoencoder = { spec = "small-coder" }
objective = { spec = "autoencoding" }

[[stage]]
name = "first"
latent = { autoencoder = "{codes}" }
process = { spec = "vp" }
denoiser = { spec = "mlp", options = { width = 8, depth = 1 } }
objective = { spec = "simple" }

[[stage]]
name = "second"
latent = { autoencoder = "{codes}" }
process = { spec = "vp" }
denoiser = { spec = "mlp", options = { width = 8, depth = 1 } }
objective = { spec = "simple" }
"""


def test_a_stage_begins_with_the_last_model_of_its_own_kind(tmp_path):
    path = tmp_path / "kinds.toml"
    path.write_text(KINDS)
    results = train_stages(read_stages(path), tmp_path / "runs")
    codes, first, second = (trilemma.load(result.model).card for result in results)
    assert "start" not in codes["provenance"] | first["provenance"]
    assert second["provenance"]["start"] == "first"
    assert first["latent"]["sha256"] == second["latent"]["sha256"] == codes["weights"]["sha256"]
    assert second["provenance"]["start_sha256"] == first["weights"]["sha256"]
