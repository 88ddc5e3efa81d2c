"""Bad recipes, and runs that go wrong: one line, and no half a run left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trilemma.cli.app import main
from trilemma_plugins.unet.unet import UNet

FAILURE, USAGE, UNAVAILABLE = 1, 2, 3


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("steps = 4", "stepps = 4", USAGE, "unknown key 'stepps'; did you mean 'steps'?"),
        ("steps = 4", "steps = 0", USAGE, "steps = 0 is too small; expected at least 1"),
        ("batch_size = 8", "batch_size = -8", USAGE, "batch_size = -8 is too small"),
        ("batch_size = 8", "batch_size = 8000", USAGE, "8000"),
        ("blocks = 1", "block = 1", USAGE, "denoiser unet has no option 'block'; did you mean 'blocks'?"),
        ("blocks = 1", "blocks = 'many'", USAGE, "blocks='many' is not int"),
        ("vp:schedule", "vpp:schedule", UNAVAILABLE, "unknown process 'vpp'; did you mean 'vp'"),
        ("cosine,T=50", "cosine,t=50", USAGE, "process vp has no option 't'"),
        ("T=50", "T=0", USAGE, "T=0"),
        ('"simple"', '"simpel"', UNAVAILABLE, "unknown objective 'simpel'; did you mean 'simple'"),
        ('"simple"', '"simple:wheighting=uniform"', USAGE, "did you mean 'weighting'"),
        ("mnist:root", "mnst:root", UNAVAILABLE, "unknown dataset 'mnst'; did you mean 'mnist'"),
        ("mnist:root", "mnist:rot", USAGE, "did you mean 'root'"),
        ("mnist:root='", "mnist:root='/nowhere", FAILURE, "holds no train-images-idx3-ubyte"),
    ],
)
def test_a_recipe_that_cannot_be_followed(refused, recipe, old, new, code, message):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    refused(code, message, "train", recipe, "--out", "run", "--no-progress")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read recipe"), (b"\xff\xfe", "is no valid TOML"), (b"", "'dataset' is missing")],
)
def test_a_file_that_is_no_recipe(refused, tmp_path, content, message):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    refused(USAGE, message, "train", path)


@pytest.mark.parametrize(
    ("override", "message"),
    [("stepps=4", "did you mean 'steps'"), ("steps=0", "at least 1"), ("steps", "key=value")],
)
def test_an_override_that_cannot_be_followed(refused, recipe, override, message):
    refused(USAGE, message, "train", recipe, "--set", override, "--out", "run")


def test_a_loss_that_is_not_finite_names_the_step(capsys, here, recipe, monkeypatch):
    forward = UNet.forward

    def broken(self, *given, **cond):
        return forward(self, *given, **cond) * (torch.nan if self.training else 1)

    monkeypatch.setattr(UNet, "forward", broken)
    assert main(["train", str(recipe), "--out", "run", "--no-progress"]) == FAILURE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the loss is nan at step 2; lower optimizer.lr")
    assert not Path("run", "checkpoints").exists()
    assert not Path("run", "model").exists()


def test_a_run_of_another_recipe_is_not_gone_on_with(refused, capsys, here, recipe):
    command = ["train", str(recipe), "--out", "run", "--no-progress"]
    assert main(command) == 0
    capsys.readouterr()
    refused(FAILURE, "under another recipe", *command, "--set", "seed=1")
