"""Files and requests that would hang or grow without end: one line each, in little memory and time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import load, save

from trilemma.errors import TrilemmaError
from trilemma.machine.allowance import Allowance
from trilemma.models.card import build_denoiser, load_model, save_model

CARD = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:schedule=cosine,T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 10, "groups": 4},
    },
    "data": {"shape": [1, 8, 8]},
}
RECIPE = """
steps = 1
batch_size = 2
dataset = { spec = "digits" }
process = { spec = "vp:schedule=cosine,T=50" }
objective = { spec = "simple" }
denoiser = { options = { channels = [8], blocks = 1, groups = 4 } }
"""
MANY = 100_000_000_000

# Runs the command line on each line of its input within 20 s, in 600 megabytes beside what the libraries take.
RUNNER = """
import contextlib, io, json, resource, signal, sys, time
import torch
import trilemma.engine.sampling, trilemma.evaluate, trilemma.train.trainer, accelerate, sklearn.datasets
from trilemma.cli.app import main
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + 6 * 10**8, pages + 6 * 10**8))
for line in sys.stdin:
    said, error = io.StringIO(), io.StringIO()
    signal.alarm(20)
    began = time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
        code = main(json.loads(line))
    signal.alarm(0)
    print(json.dumps([code, said.getvalue(), error.getvalue(), time.monotonic() - began]), flush=True)
"""


class Runner:
    """The command line in a process of its own, which a case that hangs ends."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        if self.process is None:
            command = [sys.executable, "-c", RUNNER]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(command, text=True, **pipes)
        self.process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self.process.stdin.flush()
        if answer := self.process.stdout.readline():
            return tuple(json.loads(answer)[:3])
        code = self.close()
        return pytest.fail(f"it hung, or its process ended otherwise: {code}")

    def close(self) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        process.stdin.close()
        process.stdout.close()
        return process.wait()


@pytest.fixture(scope="module")
def runner() -> Runner:
    made = Runner()
    yield made
    made.close()


@pytest.fixture
def refused(runner) -> Callable[..., str]:
    def check(message: str, *arguments: object) -> str:
        code, said, error = runner(*arguments)
        assert code in (1, 2), error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert len(error) < 300
        assert "TRILEMMA_TRACEBACK" not in error
        assert ";" in error
        assert message in error
        assert not said
        return error

    return check


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, CARD, build_denoiser(CARD, seed=0).state_dict())
    return path


@pytest.fixture
def model(tiny, tmp_path) -> Path:
    """A copy to damage."""
    path = tmp_path / "m"
    path.mkdir()
    for file in tiny.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def change(model: Path, table: str, values: dict[str, object]) -> None:
    card = tomllib.loads((model / "model.toml").read_text())
    card[table] |= values
    (model / "model.toml").write_text(tomli_w.dumps(card))


def instead(path: Path, kind: str) -> Path:
    """Puts something that is no file in the place of one."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    return path


KINDS = pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])


# --- what is no file


@KINDS
@pytest.mark.parametrize("name", ["weights.safetensors", "model.toml"])
def test_a_models_file_that_is_none(refused, model, kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    instead(model / name, kind)
    refused(name, "sample", model, "--out", tmp_path / "x.png")


@pytest.mark.parametrize(
    "name", ["../x", "/dev/zero", "", ".", "..", "sub/x", "..\\\\x", "x\\u0000y", "/etc/hostname"]
)
def test_weights_by_a_name_that_leads_elsewhere(refused, model, tmp_path, name):
    (tmp_path / "x").write_bytes((model / "weights.safetensors").read_bytes())
    edit(model / "model.toml", '"weights.safetensors"', f'"{name}"')
    refused("not the plain name of a file beside it", "sample", model, "--out", tmp_path / "x.png")


def test_weights_behind_a_link(refused, model, tmp_path):
    outside = tmp_path / "outside.safetensors"
    (model / "weights.safetensors").rename(outside)
    (model / "weights.safetensors").symlink_to(outside)
    refused("a link out of its folder", "sample", model, "--out", tmp_path / "x.png")
    (model / "weights.safetensors").unlink()
    outside.rename(model / "real.safetensors")
    (model / "weights.safetensors").symlink_to("real.safetensors")
    assert load_model(model)
    (tmp_path / "linked").symlink_to(model)
    assert load_model(tmp_path / "linked")


@KINDS
@pytest.mark.parametrize("option", ["--start", "--known", "--mask"])
@pytest.mark.parametrize("suffix", ["png", "npz"])
def test_a_picture_that_is_no_file(refused, tiny, tmp_path, monkeypatch, kind, option, suffix):
    monkeypatch.chdir(tmp_path)
    path = instead(tmp_path / f"x.{suffix}", kind)
    refused("cannot read", "sample", tiny, option, path, "--out", tmp_path / "out.png")


@KINDS
def test_a_recipe_that_is_no_file(refused, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = instead(tmp_path / "recipe.toml", kind)
    message = "holds no images" if kind == "folder" else "cannot read recipe"
    refused(message, "train", path, "--out", tmp_path / "run")


@KINDS
def test_a_zip_and_an_idx_file_that_are_none(refused, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["train", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--set"]
    if kind != "folder":
        instead(tmp_path / "x.zip", kind)
        refused("neither a folder nor a readable zip", *command, f"dataset.spec=images:root={tmp_path}/x.zip")
    instead(tmp_path / "train-images-idx3-ubyte", kind)
    refused("train-images-idx3-ubyte", *command, f"dataset.spec=mnist:root='{tmp_path}'")


@KINDS
@pytest.mark.parametrize("name", ["model.toml", "weights.safetensors"])
def test_a_feature_network_that_is_no_file(refused, tiny, tmp_path, monkeypatch, kind, name):
    from trilemma_plugins.metrics import features

    monkeypatch.chdir(tmp_path)
    for file in (Path(features.__file__).parent / "weights").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    instead(tmp_path / name, kind)
    spec = f"mnist-features:folder='{tmp_path}'"
    words = "is no model directory" if name == "model.toml" else "cannot read"
    refused(words, "eval", tiny, "-n", 4, "--features", spec, "--dataset", "digits")


@KINDS
@pytest.mark.parametrize("name", ["model.toml", "weights.safetensors"])
def test_a_classifier_that_is_no_file(refused, tmp_path, monkeypatch, kind, name):
    from trilemma_plugins.guidances import bundled

    monkeypatch.chdir(tmp_path)
    for file in bundled.BUNDLED["mnist"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    instead(tmp_path / name, kind)
    guidance = f"classifier:model='{tmp_path}',label=1"
    words = "is no model directory" if name == "model.toml" else "cannot read"
    refused(words, "sample", "mnist", "--guidance", guidance, "--out", tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.npz", "folder/provenance.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_provenance_that_is_no_file(tmp_path, name, kind):
    """In this process, since no command reads one; a pipe would hang."""
    from trilemma.output import provenance

    (tmp_path / "folder").mkdir()
    instead(tmp_path / name, kind)
    with pytest.raises(TrilemmaError) as caught:
        provenance(tmp_path / name.removesuffix("/provenance.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_folder_of_samples_whose_record_is_no_file(refused, tiny, tmp_path, kind):
    (tmp_path / "out").mkdir()
    instead(tmp_path / "out" / "provenance.json", kind)
    refused("provenance.json", "sample", tiny, "-n", 1, "--steps", 1, "--out", tmp_path / "out")


# --- what is too large


@pytest.mark.parametrize("name", ["model.toml", "recipe.toml"])
def test_a_card_and_a_recipe_of_a_gigabyte(refused, model, tmp_path, name):
    path = model / name
    path.touch()
    os.truncate(path, 1 << 30)  # sparse
    command = ["sample", model] if name == "model.toml" else ["train", path]
    refused("1,073,741,824 bytes, at most 1,048,576 are read", *command, "--out", tmp_path / "x")


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 10_000, "\ufeff" * 3, "x = \x00"])
def test_a_card_and_a_recipe_that_no_parser_likes(refused, model, tmp_path, text):
    (model / "model.toml").write_text(text)
    (tmp_path / "recipe.toml").write_text(text)
    refused("is no valid TOML", "sample", model, "--out", tmp_path / "x.png")
    refused("is no valid TOML", "train", tmp_path / "recipe.toml", "--out", tmp_path / "run")


def test_a_byte_order_mark_is_no_fault(model, tmp_path):
    from trilemma.train import read_recipe

    card = model / "model.toml"
    card.write_bytes(b"\xef\xbb\xbf" + card.read_bytes().replace(b"\n", b"\r\n"))
    assert load_model(model)
    (tmp_path / "recipe.toml").write_text("\ufeff" + RECIPE, encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml").steps == 1


def vouch_for(model: Path, blob: bytes) -> None:
    weights = model / "weights.safetensors"
    before, after = (hashlib.sha256(content).hexdigest() for content in (weights.read_bytes(), blob))
    edit(model / "model.toml", before, after)
    weights.write_bytes(blob)


def safetensors(header: bytes, numbers: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


@pytest.mark.parametrize(
    "blob",
    [
        safetensors(b"{}", length=2**63),
        safetensors(b"[" * 1_000_000),
        safetensors(b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        safetensors(b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)),
        safetensors(b'{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        safetensors(b'{"x":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', bytes(4)),
        safetensors(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(8)),
        safetensors(b'{"x":3}'),
        safetensors(b"[]"),
        safetensors(b"\xff\xfe"),
    ],
)
def test_weights_whose_header_lies(refused, model, tmp_path, blob):
    vouch_for(model, blob)
    refused("is no safetensors file", "sample", model, "--out", tmp_path / "x.png")


def test_weights_that_are_far_larger_than_the_network(refused, model, tmp_path):
    """More than there is memory, in a sparse file of which the header says that they belong to another network."""
    header = b'{"x":{"dtype":"F32","shape":[200000000],"data_offsets":[0,800000000]}}'
    weights = model / "weights.safetensors"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_bytes(safetensors(header))
    os.truncate(weights, 8 + len(header) + 800_000_000)
    with weights.open("rb") as file:
        edit(model / "model.toml", before, hashlib.file_digest(file, "sha256").hexdigest())
    refused("do not fit", "sample", model, "--out", tmp_path / "x.png")


def test_weights_that_exceed_the_machine(refused, model, tmp_path):
    os.truncate(model / "weights.safetensors", 1 << 42)
    refused("at most", "sample", model, "--out", tmp_path / "x.png")


@pytest.mark.parametrize(
    ("option", "value"),
    [("channels", [10**9]), ("blocks", 10**9), ("classes", 10**9), ("embedding", 10**9)],
)
def test_a_card_of_an_absurd_network(refused, model, tmp_path, option, value):
    change(model, "denoiser", {"options": {**CARD["denoiser"]["options"], option: value}})
    error = refused("model.toml", "sample", model, "--out", tmp_path / "x.png")
    assert "its weights are" in error or "this machine has" in error


@pytest.mark.parametrize(
    "override",
    ["channels=[1000000000]", "blocks=1000000000", "classes=1000000000000", "embedding=1000000000"],
)
def test_a_recipe_of_an_absurd_network(refused, tmp_path, override):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["train", tmp_path / "recipe.toml", "--out", tmp_path / "run"]
    refused("this machine has", *command, "--set", f"denoiser.options.{override}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spec", ["mixture2d:n=1000000000000", "mixture2d:modes=1000000000000"])
def test_a_data_set_of_an_absurd_size(refused, tmp_path, spec):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    refused("integer in range", "train", tmp_path / "recipe.toml", "--set", f"dataset.spec={spec}")


def test_a_card_of_absurd_pictures(refused, model, tmp_path):
    change(model, "data", {"shape": [1, 1_000_000, 1_000_000]})
    refused("of memory", "sample", model, "-n", 1, "--out", tmp_path / "x.npz")


# --- what inflates


def bomb_png(side: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(side + 1)) for _ in range(1000)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb_npz(shape: tuple[int, ...], pieces: int) -> bytes:
    """An archive of as many times 256 MiB of zeros, a thousandth as large."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("samples.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _ in range(pieces):
            file.write(bytes(1 << 28))
    return buffer.getvalue()


def test_pictures_and_arrays_that_inflate(refused, tiny, tmp_path):
    picture, array = tmp_path / "x.png", tmp_path / "x.npz"
    picture.write_bytes(bomb_png(10_000))  # between Pillow's warning and its error
    refused("10000×10000 pixels, at most", "sample", tiny, "--start", picture, "--out", tmp_path / "o.png")
    picture.write_bytes(bomb_png(200_000))
    refused("200000×200000 pixels, at most", "sample", tiny, "--start", picture, "--out", tmp_path / "o.png")
    for shape, pieces, message in (
        ((3 << 20, 1, 8, 8), 3, "cannot read"),  # true, and too much for this process
        ((1, 1, 8, 8), 1, "bytes for 256 of numbers"),
        ((1 << 40, 1, 8, 8), 0, "at most 1,073,741,824 are read"),
        ((2, 3, 4), 0, "expected (n, 1, 8, 8)"),
    ):
        array.write_bytes(bomb_npz(shape, pieces))
        refused(message, "sample", tiny, "--start", array, "--out", tmp_path / "o.png")


def test_members_of_a_zip_that_inflate(refused, tmp_path):
    root = tmp_path / "x.zip"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["train", tmp_path / "recipe.toml", "--set", f"dataset.spec=images:root={root},size=8"]
    for method, pieces in ((zipfile.ZIP_DEFLATED, 5), (zipfile.ZIP_LZMA, 1)):
        with (
            zipfile.ZipFile(root, "w", method, compresslevel=1) as archive,
            archive.open("a/1.png", "w", force_zip64=True) as file,
        ):
            for _ in range(pieces):
                file.write(bytes(1 << 26))
        if method == zipfile.ZIP_DEFLATED:
            refused("335,544,320 bytes, at most 268,435,456 are read", *command)
        blob = root.read_bytes()  # now each header says that there are 1000 bytes
        for form in ("<Q", "<I"):
            blob = blob.replace(struct.pack(form, pieces << 26), struct.pack(form, 1000))
        root.write_bytes(blob)
        refused("a/1.png", *command)


def test_gzip_that_inflates(refused, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ["train", tmp_path / "recipe.toml", "--set", f"dataset.spec=mnist:root='{tmp_path}'"]
    images = tmp_path / "train-images-idx3-ubyte.gz"
    zeros = gzip.compress(bytes(1 << 27), 1) * 12  # 1.5 GiB
    for sizes, message in (
        ((10, 28, 28), "holds more bytes of data, its header promises 7840"),
        ((2**31, 2**31, 2**31), "which cannot hold"),
        ((2**30 + 1, 1, 1), "at most 1,073,741,824 are read"),
    ):
        images.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *sizes)) + zeros)
        refused(message, *command)


# --- what is asked for


@pytest.mark.parametrize("out", ["x.png", "x.npz"])
@pytest.mark.parametrize("asked", [["-n", MANY], ["--indices", f"0-{MANY}"], ["--indices", f"5,7-{MANY}"]])
def test_more_samples_than_one_file_holds(refused, tiny, tmp_path, out, asked):
    refused("ask for fewer, or for a folder", "sample", tiny, *asked, "--out", tmp_path / out)
    refused("GB of memory", "eval", tiny, "-n", MANY, "--dataset", "digits")


@pytest.mark.parametrize("indices", ["0-" + "9" * 17, "0-" + "9" * 21, "9" * 50, "0-9,5"])
def test_indices_that_are_none(refused, tiny, tmp_path, indices):
    refused("indices '", "sample", tiny, "--indices", indices, "--out", tmp_path / "x")


def test_a_folder_takes_samples_without_end(tiny, tmp_path):
    """Pictures come at once, though there are 10¹¹ of them to come."""
    command = [sys.executable, "-m", "trilemma", "sample", str(tiny), "-n", str(MANY), "--steps", "1", "-q"]
    with subprocess.Popen([*command, "--batch-size", "8", "--out", str(tmp_path / "out")]) as process:
        try:
            deadline = time.monotonic() + 60
            while len(list((tmp_path / "out").glob("*.png"))) < 16:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 1_500_000  # kB


# --- the parts


def test_an_allowance_refuses_before_anything_is_made():
    def made() -> None:
        torch.nn.Linear(10**9, 10**9)

    for numbers, tensors, message in ((10**6, None, "4e\\+09 GB"), (10**30, 0, "more than 0 tensors")):
        with pytest.raises(ValueError, match=message), Allowance(numbers, tensors, "why"):
            made()
    with Allowance(10_000, 10, "why"):
        torch.nn.Linear(10, 10)
        torch.zeros(3, 4)
        torch.arange(0, 10, 2)
        torch.linspace(0, 1, 5)
    for make in (
        lambda: torch.arange(10**12),
        lambda: torch.linspace(0, 1, 10**12),
        lambda: torch.empty(size=(10**6, 10**6)),
        lambda: torch.zeros(3).new_zeros(10**12),
        lambda: torch.full((10**12,), 1.0),
        lambda: torch.eye(10**6),
        lambda: torch.randn(10**6, 10**6),
        lambda: torch.randperm(10**12),
    ):
        with pytest.raises(ValueError, match="why"), Allowance(10_000, None, "why"):
            make()


def test_weights_of_the_right_shapes_are_read_as_before(model):
    weights = load((model / "weights.safetensors").read_bytes())
    vouch_for(model, save({name: tensor.half() for name, tensor in weights.items()}, {"made": "by a test"}))
    loaded = load_model(model).state_dict()
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in weights.items())
    del weights["outlet.bias"]
    vouch_for(model, save(weights))
    with pytest.raises(TrilemmaError, match=r"do not fit .* they lack outlet\.bias"):
        load_model(model)


def test_a_picture_is_read_from_a_file_with_any_name(tiny, tmp_path):
    from trilemma.files.request import read_images

    Image.new("L", (8, 8), 255).save(tmp_path / "x.tiff")
    assert read_images(tmp_path / "x.tiff", (1, 8, 8)).unique().tolist() == [1.0]
