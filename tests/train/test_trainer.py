"""What a run draws, compiles and tells."""

import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import UsageError
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train


def test_grids_are_drawn_as_the_run_goes(tiny_recipe, tmp_path):
    wishes = [
        "steps=4",
        "samples.every=2",
        "samples.n=4",
        "samples.steps=2",
        "samples.cond={'class': [3, 7]}",
    ]
    train(read_recipe(tiny_recipe, wishes), tmp_path / "run")
    names = [path.name for path in sorted((tmp_path / "run" / "samples").iterdir())]
    assert names == ["step-000000002.png", "step-000000004.png"]
    with Image.open(tmp_path / "run" / "samples" / names[-1]) as picture:
        assert picture.size >= (56, 56)
        assert picture.text


def test_a_grid_that_fails_stops_no_run(tiny_recipe, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trilemma.output.write_png_grid", full)
    recipe = read_recipe(tiny_recipe, ["steps=4", "samples.every=4", "samples.n=2", "samples.steps=2"])
    assert train(recipe, tmp_path / "run").model.is_dir()
    out, err = capsys.readouterr()
    assert "no sample grid at step 4" in err
    assert out == ""


def test_compiling_a_cpu_network_in_half_precision_is_refused(tiny_recipe, tmp_path):
    with pytest.raises(UsageError, match="loses gradients"):
        train(read_recipe(tiny_recipe, ["precision=bf16", "compile=true"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tiny_recipe, tmp_path):
    plain = train(read_recipe(tiny_recipe, ["steps=4", "denoiser.options.dropout=0.0"]), tmp_path / "plain")
    wishes = ["steps=4", "denoiser.options.dropout=0.0", "compile=true"]
    compiled = train(read_recipe(tiny_recipe, wishes), tmp_path / "compiled")
    first, second = (trilemma.load(run.model).state_dict() for run in (plain, compiled))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=2e-3)
