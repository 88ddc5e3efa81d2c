"""A checkpoint that knew one network and one loss goes on, to the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trilemma.errors import ModelError
from trilemma.train import checkpoint as checkpoints
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train


def as_it_was(path: Path) -> None:
    """Rewrites a checkpoint of one network in format 2."""
    found = load_checkpoint(path)
    log = found.tensors.get("log", {"loss": torch.zeros(())})
    groups = {
        "model": found.tensors["part.model"],
        "ema": found.tensors["ema.model"],
        "optimizer": found.tensors["optimizer.model"],
        "log": {"total": log["loss"]},
    }
    scalars = found.scalars | {
        "precision": found.scalars["precision"]["model"],
        "since": found.scalars["since"].get("loss", 0),
    }
    save_file(checkpoints._apart(groups), path / "state.safetensors")
    identity = {key: value for key, value in vars(found.identity).items() if key != "frozen"}
    state = {"format": 2, "step": found.step, "identity": identity, "scalars": scalars}
    state["tensors_sha256"] = checkpoints._file_digest(path / "state.safetensors")
    state["sha256"] = checkpoints._digest_of(state)
    (path / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("log_every", [4, 5])
def test_it_goes_on_to_the_same_bits(tiny_recipe, tmp_path, log_every):
    recipe = read_recipe(tiny_recipe, ["keep=9", "steps=12", f"log_every={log_every}"])
    train(recipe, tmp_path / "unbroken")
    shutil.copytree(tmp_path / "unbroken", tmp_path / "old")
    first, *later = list_checkpoints(tmp_path / "old" / "checkpoints")
    for path in (*later, tmp_path / "old" / "model"):
        shutil.rmtree(path)
    as_it_was(first)
    assert json.loads((first / "state.json").read_text())["format"] == 2
    train(recipe, tmp_path / "old")
    a, b = (
        load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("unbroken", "old")
    )
    assert a.scalars == b.scalars
    for group, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[group][name]), (group, name)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("unbroken", "old")]
    logs = [[json.loads(line) | {"images_per_second": 0} for line in lines] for lines in logs]
    assert logs[0] == logs[1]


def test_it_does_not_go_on_as_a_run_of_several_networks(tiny_recipe, tmp_path):
    recipe = read_recipe(tiny_recipe, ["steps=4"])
    train(recipe, tmp_path / "run")
    path = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    as_it_was(path)
    pair = tmp_path / "gan.toml"
    pair.write_text("""
steps = 8
batch_size = 8
tensorboard = false
dataset = { spec = "mixture2d:n=100" }
process = { spec = "vp-continuous" }
denoiser = { spec = "mlp", parameterization = "x0" }
objective = { spec = "gan" }
""")
    with pytest.raises(ModelError, match="is of another network") as caught:
        train(read_recipe(pair), tmp_path / "other", from_checkpoint=path)
    assert "\n" not in str(caught.value)
