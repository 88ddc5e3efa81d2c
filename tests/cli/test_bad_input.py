"""Bad input: one line that says what to do, the right exit code, and nothing half-written left behind."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trilemma
from trilemma.cli.app import main
from trilemma.models.card import read_card, save_model


def check_one_line(error: str, message: str) -> None:
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert "Traceback" not in error
    assert message in error
    assert ";" in error  # what to do stands after it


def truncate(model: Path) -> None:
    weights = model / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def flip_a_bit(model: Path) -> None:
    weights = model / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[len(blob) // 2] ^= 4
    weights.write_bytes(blob)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "sha256"),
        (flip_a_bit, "sha256"),
        (lambda model: edit(model / "model.toml", 'sha256 = "', 'sha256 = "0'), "64 hexadecimal digits"),
        (lambda model: (model / "weights.safetensors").unlink(), "No such file"),
        (lambda model: (model / "model.toml").unlink(), "no model directory"),
        (lambda model: edit(model / "model.toml", "[model]", "[model"), "no valid TOML"),
        (lambda model: edit(model / "model.toml", "format = 1", "format = 99"), "reads format 1"),
        (lambda model: edit(model / "model.toml", "sha256 =", "sha265 ="), "did you mean 'weights.sha256'"),
        (
            lambda model: edit(model / "model.toml", 'spec = "unet"', 'spec = "unet"\nspeck = 1'),
            "denoiser.speck",
        ),
    ],
)
def test_a_damaged_model(model, refused, damage, message):
    damage(model)
    refused(1, message, "sample", model, "-n", 1, "--out", "x.png")


def test_weights_cut_off_whose_sha256_fits(model, refused):
    import hashlib

    good = hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest()
    truncate(model)
    edit(model / "model.toml", good, hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest())
    refused(1, "no safetensors file", "sample", model, "-n", 1, "--out", "x.png")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 24", "stepz = 24", "did you mean 'steps'"),
        ("lr = 0.01", "lrate = 0.01", "optimizer.lrate"),
        ("steps = 24", "steps = 0", "at least 1"),
        ("steps = 24", 'steps = "many"', "expected int"),
        ("batch_size = 8", "batch_size = -8", "at least 1"),
        ("steps = 24", "steps = = 24", "no valid TOML"),
        ("process", "proces", "did you mean 'process'"),
    ],
)
def test_a_bad_recipe(tmp_path, refused, old, new, message):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    edit(recipe, old, new)
    refused(2, message, "train", recipe, "--no-progress")


RECIPE = """
steps = 24
batch_size = 8
dataset = { spec = "mnist" }
process = { spec = "vp:T=50" }
denoiser = { parameterization = "v", options = { channels = [8] } }
objective = { spec = "simple" }
optimizer = { lr = 0.01 }
"""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--sampler", "ddin"], 3, "did you mean 'ddim'"),
        (["--sampler", "ddim:etta=0"], 2, "did you mean 'eta'"),
        (["--sampler", "ddim:eta=nought"], 2, "eta='nought'"),
        (["--sampler", "ddim:eta"], 2, "write eta=value"),
        (["--sampler", "ddim:eta=-1"], 2, "eta=-1"),
        (["--guidance", "cgf:scale=2"], 3, "did you mean 'cfg'"),
        (["--guidance", "cfg:scle=2", "--cond", "class=1"], 2, "did you mean 'scale'"),
        (["--steps", "0"], 2, "steps"),
        (["--steps", "-4"], 2, "steps"),
        (["--steps", "51"], 2, "50"),
        (["--batch-size", "-8"], 2, "batch_size=-8"),
        (["--batch-size", "0"], 2, "batch_size=0"),
        (["-n", "-1"], 2, "at least 1"),
        (["--cond", "class=3"], 2, "class=3 is out of range; give an integer from 0 to 2"),
        (["--cond", "class=-1"], 2, "class=-1"),
        (["--cond", "class=[0,7]"], 2, "class=7"),
        (["--cond", "class=1.5"], 2, "class=1.5"),
        (["--cond", "class=cat"], 2, "class='cat'"),
        (["--steps", "many"], 2, "--steps"),
        (["--cond", "clas=1"], 2, "this model takes: class"),
        (["--seed", str(2**64)], 2, "2**64 - 1"),
        (["--sampler", "ddim:grid=trailling"], 2, "did you mean 'trailing'"),
        (["--sampler", "ddim:"], 2, "write name:key=value"),
        (["--guidance", "cfg:scale=2"], 2, "class"),  # without a class there is nothing to be guided to
        (["--device", "abacus"], 2, "unknown device 'abacus'"),
        (["more"], 2, "see trilemma sample --help"),
        (["--threads", "-1"], 2, "--threads"),
        (["--stepz", "3"], 2, "--stepz"),
    ],
)
@pytest.mark.parametrize("out", ["x.png", "folder/"])
def test_bad_arguments(tiny_model, refused, arguments, code, message, out):
    refused(code, message, "sample", tiny_model, "-n", 1, "--out", out, *arguments)


def test_an_unknown_model_and_command(refused):
    refused(3, "mnits", "sample", "mnits")
    refused(2, "did you mean 'sample'", "sampel", "mnist")


@pytest.mark.parametrize("out", ["x.png", "x.npz", "folder/"])
@pytest.mark.parametrize("network_dtype", ["float32", "bfloat16"])
def test_a_network_that_stops_being_finite_is_caught_at_its_step(
    tiny_model, refused, monkeypatch, out, network_dtype
):
    failing_from_step(monkeypatch, tiny_model, 4)
    message = "step 4 of 6 (t="
    refused(
        1,
        message,
        "sample",
        tiny_model,
        "-n",
        2,
        "--steps",
        6,
        "--out",
        out,
        "--dtype",
        network_dtype,
        "--no-progress",
    )


def test_the_error_has_a_line_of_its_own_below_the_progress_bar(tiny_model, here, capsys, monkeypatch):
    failing_from_step(monkeypatch, tiny_model, 2)
    assert main(["sample", str(tiny_model), "-n", "2", "--steps", "3"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    check_one_line(last + "\n", "step 2 of 3")
    assert os.listdir(here) == []


def failing_from_step(monkeypatch, model, step):
    """From now on the network of this model answers NaN from its call number `step` on."""
    network = type(trilemma.load(model))
    forward, calls = network.forward, []

    def failing(self, z, t, **cond):
        if not isinstance(z, torch.fx.Proxy):  # which `fuse` calls it with, to see what it does
            calls.append(t)
        answer = forward(self, z, t, **cond)
        return answer * torch.nan if len(calls) >= step else answer

    monkeypatch.setattr(network, "forward", failing)


def test_weights_that_are_not_finite_are_caught_at_the_first_step(tiny_model, tmp_path, refused):
    tensors = load_file(tiny_model / "weights.safetensors")
    tensors["outlet.bias"][:] = torch.nan
    card = {key: table for key, table in read_card(tiny_model).items() if key not in ("format", "weights")}
    save_model(tmp_path / "nan", card, tensors)
    refused(
        1, "step 1 of 3", "sample", tmp_path / "nan", "-n", 1, "--steps", 3, "--out", "x.png", "--no-progress"
    )


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk can be mounted only by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("out", ["x.npz", "x.png", "folder/"])
def test_a_disk_that_fills_up(tiny_model, small_disk, capsys, out):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(60 * 1024))  # 4 KiB are left, and the archive and the grid are larger
    options = ["-n", "100", "--steps", "2", "--batch-size", "100", "--columns", "1"]
    if not out.endswith(".png"):
        options = options[:-2]
    code = main(["sample", str(tiny_model), *options, "--out", f"{small_disk}/{out}", "--no-progress"])
    said, error = capsys.readouterr()
    assert (code, said) == (1, "")
    check_one_line(error, "No space left on device; free space or choose another place")
    assert os.listdir(small_disk) == ["ballast"]


def test_a_folder_on_a_full_disk_is_gone_on_with(tiny_model, small_disk, capsys):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(44 * 1024))
    command = ["sample", str(tiny_model), "-n", "6", "--steps", "2", "--batch-size", "2", "--no-progress"]
    command += ["--out", f"{small_disk}/folder"]
    assert main(command) == 1
    check_one_line(capsys.readouterr().err, "No space left on device")
    there = sorted(os.listdir(small_disk / "folder"))
    assert "provenance.json" in there
    assert 2 <= len(there) - 1 < 6
    assert not [name for name in there if name.startswith(".")]
    ballast.unlink()
    assert main(command) == 0
    assert f"{len(there) - 1} were there" in capsys.readouterr().out
    assert len(os.listdir(small_disk / "folder")) == 7


def trilemma_process(
    *arguments: object, cwd: Path, largest_file: int | None = None
) -> subprocess.CompletedProcess:
    """The program as a process of its own, which cannot make a file larger than this."""

    def limited() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-m", "trilemma", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_that_may_not_write_so_much(tiny_model, here):
    done = trilemma_process(
        "sample",
        tiny_model,
        "-n",
        64,
        "--steps",
        1,
        "--out",
        "x.npz",
        "--no-progress",
        cwd=here,
        largest_file=8192,
    )
    assert (done.returncode, done.stdout) == (1, "")
    check_one_line(done.stderr, "cannot write x.npz: File too large")
    assert os.listdir(here) == []


def test_a_process_refuses_a_damaged_model(model, here):
    flip_a_bit(model)
    done = trilemma_process("sample", model, "-n", 1, cwd=here)
    assert (done.returncode, done.stdout) == (1, "")
    check_one_line(done.stderr, "sha256")
    assert os.listdir(here) == []
