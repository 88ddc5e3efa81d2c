"""Damaged models: what a checksum does not catch, cards that cannot be trusted, and models that are not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

FAILURE, USAGE, UNAVAILABLE = 1, 2, 3


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def vouch_for(model: Path, blob: bytes) -> None:
    """Replaces the weights of a model, and the sha256 in its card with theirs."""
    weights = model / "weights.safetensors"
    before, after = (hashlib.sha256(content).hexdigest() for content in (weights.read_bytes(), blob))
    edit(model / "model.toml", before, after)
    weights.write_bytes(blob)


@pytest.mark.parametrize("length", [0, 7, 100, -100, -1])
def test_weights_truncated_anywhere(refused, model, length):
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    refused(FAILURE, "weights.safetensors is damaged or not the one", "sample", model, "--out", "x.png")


@pytest.mark.parametrize("place", [0, 9, 2000, -1])
def test_weights_with_a_bit_flipped_anywhere(refused, model, place):
    weights = model / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[place] ^= 16
    weights.write_bytes(blob)
    refused(FAILURE, "weights.safetensors is damaged or not the one", "sample", model, "--out", "x.png")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_weights_that_are_truncated_and_vouched_for(refused, model, length):
    vouch_for(model, (model / "weights.safetensors").read_bytes()[:length])
    refused(FAILURE, "is no safetensors file", "sample", model, "--out", "x.png")


def test_weights_of_another_network(refused, model):
    vouch_for(model, save({"weight": torch.zeros(3)}))
    refused(FAILURE, "do not fit", "sample", model, "--out", "x.png")


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_weights_that_are_nan(refused, digit_model, tiny_mnist, command):
    model = digit_model
    weights = load_file(model / "weights.safetensors")
    vouch_for(model, save({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}))
    message = "step 1 of 3 (t=1) gave a value that is not finite in sample 0; check the model's weights"
    data = [] if command == "sample" else ["--dataset", f"mnist:root='{tiny_mnist}'"]
    refused(FAILURE, message, command, model, "-n", 4, "--steps", 3, "--no-progress", *data)


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("[process]", "[proces]", FAILURE, "unknown key 'proces'; did you mean 'process'?"),
        ('name = "tiny"', 'name = "tiny"\nsumary = ""', FAILURE, "did you mean 'model.summary'?"),
        ("[data]", "[data]\nshapes = 1", FAILURE, "did you mean 'data.shape'?"),
        ("classes = 3", "clases = 3", FAILURE, "has no option 'clases'; did you mean 'classes'?"),
        ("schedule=cosine", "shedule=cosine", FAILURE, "did you mean 'schedule'?"),
        ('spec = "unet"', 'spec = "unett"', UNAVAILABLE, "did you mean 'unet'?"),
        ('"weights.safetensors"', "3", FAILURE, "weights.file = 3 is not a string"),
        ('"vp:schedule=cosine,T=50"', "3", FAILURE, "process.spec = 3 is not a string"),
        ('spec = "unet"', "spec = ['unet']", FAILURE, "denoiser.spec = ['unet'] is not a string"),
        ("[denoiser]", "[denoiser]\nnothing = 1", FAILURE, "denoiser.nothing"),
        ('parameterization = "v"', "parameterization = 3", FAILURE, "denoiser.parameterization = 3"),
        ('parameterization = "v"', 'parameterization = "w"', FAILURE, "x0, eps, v, score"),
    ],
)
def test_a_card_that_cannot_be_trusted(refused, model, old, new, code, message):
    edit(model / "model.toml", old, new)
    error = refused(code, message, "sample", model, "--out", "x.png")
    assert code != FAILURE or "model.toml" in error


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("mnistt", UNAVAILABLE, "unknown model 'mnistt'; did you mean 'mnist'"),
        ("./nowhere", FAILURE, "nowhere is no model directory"),
        ("nowhere/", FAILURE, "nowhere is no model directory"),
    ],
)
@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_model_that_is_not_there(refused, command, name, code, message):
    refused(code, message, command, name)


def test_a_file_that_is_no_model(refused, here):
    (here / "x").write_text("no model")
    refused(FAILURE, "x is no model directory", "sample", "./x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_device_that_is_not_there(refused, model, command):
    refused(FAILURE, "'cuda' cannot be used", command, model, "--device", "cuda")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "0"], USAGE, "steps=0"),
        (["--batch-size", "-1"], USAGE, "batch_size=-1"),
        (["-n", "-1"], USAGE, "n=-1"),
        (["--sampler", "dimm"], UNAVAILABLE, "did you mean 'ddim'"),
        (["--metric", "frechett"], UNAVAILABLE, "unknown metric 'frechett'; did you mean 'frechet'"),
        (["--metric", "precision:kk=3"], USAGE, "has no option 'kk'"),
        (["--dataset", "mnst"], UNAVAILABLE, "unknown dataset 'mnst'; did you mean 'mnist'"),
        (["--dataset", "mnist:rot='x'"], USAGE, "did you mean 'root'"),
        (["--dataset", "mnist:root='nowhere'"], FAILURE, "nowhere holds no"),
        (["--reference", "validation"], USAGE, "train or test"),
    ],
)
def test_what_a_model_cannot_be_measured_with(refused, digit_model, tiny_mnist, arguments, code, message):
    small = ["-n", 4, "--steps", 2, "--dataset", f"mnist:root='{tiny_mnist}'", "--no-progress"]
    refused(code, message, "eval", digit_model, *small, *arguments)
