"""A run that diverges keeps its last sound checkpoint, and its message's cure works as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from trilemma.cli.app import main
from trilemma.train import trainer
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.unet.unet import UNet

FAST = ["optimizer.lr=0.05", "log_every=1", "checkpoint_every=2"]
SLOW = ["optimizer.lr=0.0001", "log_every=1", "checkpoint_every=2"]


@pytest.fixture
def overflowing(monkeypatch):
    """A network that overflows once its weights are large, as they are after some steps of a high learning rate."""
    forward = UNet.forward

    def limited(self, *given, **cond):
        answer = forward(self, *given, **cond)
        return answer * (torch.nan if self.training and self.outlet.weight.abs().max() > 0.1 else 1)

    monkeypatch.setattr(UNet, "forward", limited)


def options(overrides):
    return [part for override in overrides for part in ("--set", override)]


def error_of(capsys) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 300
    return line


def test_its_cure_works(overflowing, tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", str(tiny_recipe), "--no-progress"]
    assert main([*command, "--out", "run", *options(FAST)]) == 1
    message = error_of(capsys)
    found = list_checkpoints(Path("run", "checkpoints"))
    assert found
    assert all(load_checkpoint(path).is_finite() for path in found)
    cure = re.search(r"--from-checkpoint \S+", message).group()
    assert cure.endswith(str(found[0]))
    assert main([*command, "--out", "other", *shlex.split(cure), *options(SLOW)]) == 0
    assert Path("other", "model", "model.toml").is_file()


def test_without_a_checkpoint_it_starts_again_in_the_same_folder(overflowing, tiny_recipe, tmp_path, capsys):
    command = ["train", str(tiny_recipe), "--no-progress", "--out", str(tmp_path / "run")]
    assert main([*command, *options([*FAST, "checkpoint_every=20"])]) == 1
    assert error_of(capsys).endswith('lower optimizer.lr or set precision = "no", and start again')
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")
    assert main([*command, *options(SLOW)]) == 0


@pytest.mark.parametrize("place", ["weights", "average", "moments"])
def test_nothing_that_is_not_finite_is_saved(tiny_recipe, tmp_path, monkeypatch, place):
    """Also where the loss is finite and never logged before."""
    step = trainer._Run._step

    def spoilt(self, k):
        answer = step(self, k)
        if k == 3:
            first = next(iter(self.parts.model.parameters()))
            spoilt = {
                "weights": first.data,
                "average": next(iter(self.parts.averages["model"].tensors.values())),
                "moments": self.learners[0].optimizer.state[first]["exp_avg"],
            }
            spoilt[place].view(-1)[0] = torch.inf
        return answer

    monkeypatch.setattr(trainer._Run, "_step", spoilt)
    with pytest.raises(trainer.ModelError, match="no longer finite at step 4"):
        train(read_recipe(tiny_recipe, ["checkpoint_every=2", "log_every=1000"]), tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000000002"]


def test_a_run_from_a_checkpoint_resumes_to_the_same_bits(tiny_recipe, tmp_path, monkeypatch):
    train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "first")
    recipe = read_recipe(tiny_recipe, ["steps=8", "optimizer.lr=0.001", "checkpoint_every=2"])
    train(recipe, tmp_path / "unbroken", from_checkpoint=tmp_path / "first")
    original = trainer._Run._step
    for stop in (4, 7):

        def interrupted(self, step, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return original(self, step)

        monkeypatch.setattr(trainer._Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / f"{stop}", from_checkpoint=tmp_path / "first")
        monkeypatch.setattr(trainer._Run, "_step", original)
        again = tmp_path / "first" if stop == 7 else None
        train(recipe, tmp_path / f"{stop}", from_checkpoint=again)
        a, b = (
            load_checkpoint(tmp_path / name / "checkpoints" / "step-000000008")
            for name in ("unbroken", f"{stop}")
        )
        for group, tensors in a.tensors.items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, b.tensors[group][name])


def test_a_run_goes_on_from_no_other_place(tiny_recipe, tmp_path):
    train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "first")
    recipe = read_recipe(tiny_recipe, ["steps=8"])
    with pytest.raises(trainer.UsageError, match="no checkpoint at"):
        train(recipe, tmp_path / "second", from_checkpoint=tmp_path / "nowhere")
    with pytest.raises(trainer.UsageError, match="set more"):
        train(read_recipe(tiny_recipe, ["steps=3"]), tmp_path / "second", from_checkpoint=tmp_path / "first")
    other = read_recipe(tiny_recipe, ["steps=8", "denoiser.options.patch=2"])
    with pytest.raises(trainer.ModelError, match="of another network"):
        train(other, tmp_path / "second", from_checkpoint=tmp_path / "first")
    with pytest.raises(trainer.ModelError, match="did not begin at"):
        train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "first", from_checkpoint=tmp_path / "first")


def test_weights_that_float16_cannot_hold_are_not_written(tiny_recipe, tmp_path, monkeypatch):
    """And float32 writes them from the same run."""
    step = trainer._Run._step

    def large(self, k):
        answer = step(self, k)
        self.parts.averages["model"].tensors["inlet.bias"][0] = 1e6
        return answer

    monkeypatch.setattr(trainer._Run, "_step", large)
    with pytest.raises(trainer.ModelError, match='set weights_dtype = "float32"'):
        train(read_recipe(tiny_recipe, ["steps=4", "weights_dtype=float16"]), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert train(read_recipe(tiny_recipe, ["steps=4"]), tmp_path / "run").model.is_dir()
