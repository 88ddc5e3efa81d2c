"""`trilemma sample` from the arguments to the files."""

import json
import os

import numpy as np
import pytest
import torch

import trilemma
from trilemma.cli.app import main
from trilemma.output import provenance


def run(capsys, *arguments):
    code = main(["sample", *map(str, arguments), "--no-progress"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_grid_and_its_provenance(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.png"
    options = [
        "--sampler",
        "ddim",
        "--steps",
        5,
        "--guidance",
        "cfg:scale=2",
        "--cond",
        "class=1",
        "--seed",
        3,
    ]
    code, said, _ = run(capsys, tiny_model, "-n", 4, *options, "--out", out)
    assert code == 0
    assert "4 samples" in said
    assert "NFE 10" in said
    record = provenance(out)
    assert (record["nfe"], record["seed"], record["cond"]) == (10, 3, {"class": 1})
    assert record["guidance"] == "cfg:scale=2.0"


def test_an_archive_holds_what_the_library_draws(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.npz"
    code, said, _ = run(
        capsys, tiny_model, "-n", 3, "--steps", 4, "--cond", "class=[0,1]", "--out", out, "--json"
    )
    assert code == 0
    assert json.loads(said)["drawn"] == 3
    drawn = trilemma.sample(trilemma.load(tiny_model), 3, steps=4, cond={"class": [0, 1]})
    np.testing.assert_array_equal(np.load(out)["samples"], drawn.samples.numpy())


def test_a_folder_is_filled_up_with_the_same_samples(capsys, tiny_model, tmp_path):
    common = [tiny_model, "--steps", 4, "--sampler", "ddpm", "--deterministic", "--batch-size", 2]
    run(capsys, *common, "-n", 5, "--out", tmp_path / "whole")
    run(capsys, *common, "-n", 3, "--out", tmp_path / "parts")
    (tmp_path / "parts" / "00000001.png").unlink()
    code, said, _ = run(capsys, *common, "-n", 5, "--out", tmp_path / "parts")
    assert code == 0
    assert "3 samples (2 were there already)" in said
    for name in sorted(os.listdir(tmp_path / "whole")):
        if name.endswith(".png"):
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    code, said, _ = run(capsys, *common, "-n", 5, "--out", tmp_path / "parts")
    assert code == 0
    assert "all 5 samples are there already" in said


def test_the_network_may_run_in_bfloat16(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.npz"
    assert run(capsys, tiny_model, "-n", 2, "--steps", 3, "--dtype", "bfloat16", "--out", out)[0] == 0
    assert torch.from_numpy(np.load(out)["samples"]).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "x.jpg"], 2, "x.png, x.npz, or a folder"),
        (["--out", "none/x.png"], 1, "cannot write into none"),
        (["--cond", "class"], 2, "NAME=VALUE"),
        (["--dtype", "int8"], 2, "float32 or bfloat16"),
        (["-n", "0"], 2, "at least 1"),
        (["--seed", "-1"], 2, "seed"),
        (["--cond", "style=1"], 2, "this model takes: class"),
    ],
)
def test_bad_arguments_write_nothing(capsys, tiny_model, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, said, error = run(capsys, tiny_model, *arguments)
    assert (found, said) == (code, "")
    assert error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == []
