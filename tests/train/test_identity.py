"""A checkpoint is resumed where everything that decides the weights is the same, bit for bit, or refused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from trilemma import lookup
from trilemma.errors import ModelError
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from trilemma.train.recipe import read_recipe
from trilemma.train.trainer import train

SHORT = ["steps=4", "checkpoint_every=2"]

RECIPE = """
steps = 2
batch_size = 4
tensorboard = false
dataset = {{ spec = "images:root='{root}'" }}
process = {{ spec = "vp:T=50" }}
objective = {{ spec = "simple" }}
denoiser = {{ options = {{ channels = [8], blocks = 1, groups = 4 }} }}
"""


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two classes of three pictures, as bitmaps, whose size does not depend on what they show."""
    chance = random.Random(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(3):
            picture = Image.frombytes("RGB", (8, 8), chance.randbytes(192))
            picture.save(tmp_path / "pictures" / name / f"{index}.bmp")
    return tmp_path / "pictures"


def replace_one(root: Path) -> None:
    Image.new("RGB", (8, 8), (9, 9, 9)).save(root / "cat" / "1.bmp")


def add_one(root: Path) -> None:
    shutil.copy(root / "cat" / "1.bmp", root / "cat" / "7.bmp")


def remove_one(root: Path) -> None:
    (root / "dog" / "2.bmp").unlink()


def rename_one(root: Path) -> None:
    (root / "dog" / "2.bmp").rename(root / "dog" / "0a.bmp")


def move_one(root: Path) -> None:
    (root / "dog" / "0.bmp").rename(root / "cat" / "3.bmp")


def add_class(root: Path) -> None:
    shutil.copytree(root / "cat", root / "eel")


@pytest.mark.parametrize("change", [replace_one, add_one, remove_one, rename_one, move_one, add_class])
def test_other_data_do_not_resume(pictures, tmp_path, change):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(root=pictures))
    train(read_recipe(path), tmp_path / "run")
    train(read_recipe(path), tmp_path / "run")
    change(pictures)
    with pytest.raises(ModelError, match="written with other data") as error:
        train(read_recipe(path), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_zip_is_known_by_what_its_members_hold(pictures):
    def spec(root: Path) -> str:
        packed = root.with_suffix(".zip")
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(root.rglob("*.bmp")):
                archive.write(path, path.relative_to(root))
        return lookup.dataset(f"images:root='{packed}'").fingerprint()

    before = spec(pictures)
    assert spec(pictures) == before
    replace_one(pictures)
    assert spec(pictures) != before


@pytest.mark.parametrize("part", ["images", "labels"])
def test_data_in_memory_are_known_by_every_value(part):
    first, second = lookup.dataset("digits"), lookup.dataset("digits")
    assert first.fingerprint() == second.fingerprint()
    values = second._images if part == "images" else second.labels
    values.view(-1)[-1] += 1
    assert first.fingerprint() != second.fingerprint()


@pytest.fixture
def run(tiny_recipe, tmp_path):
    train(read_recipe(tiny_recipe, SHORT), tmp_path / "run")
    return tmp_path / "run"


def test_another_number_of_processes_does_not_resume(run, tiny_recipe):
    newest = list_checkpoints(run / "checkpoints")[-1]
    checkpoint = load_checkpoint(newest)
    checkpoint.identity = dataclasses.replace(checkpoint.identity, processes=2)
    save_checkpoint(run / "checkpoints", checkpoint, 2)
    with pytest.raises(ModelError, match=r"by 2 process\(es\), this run has 1; launch 2"):
        train(read_recipe(tiny_recipe, SHORT), run)


def test_no_flipped_bit_is_taken(run, tmp_path):
    """400 of each file: refused, or the same content (an exponent's e may be written E)."""
    sound = list_checkpoints(run / "checkpoints")[-1]
    whole = json.loads((sound / "state.json").read_text())
    chance = random.Random(0)
    copy = tmp_path / "copy"
    messages: list[str] = []
    for name in ("state.json", "state.safetensors"):
        for _ in range(400):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(sound, copy)
            content = bytearray((copy / name).read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            (copy / name).write_bytes(content)
            try:
                load_checkpoint(copy)
            except ModelError as error:
                messages.append(str(error))
            else:
                assert json.loads((copy / "state.json").read_text()) == whole
    assert len(messages) > 790
    assert all(re.search(r"damaged|has format", message) for message in messages)
    assert not [message for message in messages if "\n" in message or len(message) > 300]


def test_the_cure_of_a_damaged_checkpoint_cures(run, tiny_recipe):
    newest = list_checkpoints(run / "checkpoints")[-1]
    before = load_checkpoint(newest)
    state = newest / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ModelError, match="delete it to resume from the one before"):
        train(read_recipe(tiny_recipe, SHORT), run)
    shutil.rmtree(newest)
    train(read_recipe(tiny_recipe, SHORT), run)
    after = load_checkpoint(newest)
    for group, tensors in before.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, after.tensors[group][name])


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'{"format": 2}', b'{"format": 1}', b"[" * 100_000, b"\xff"]
)
def test_a_state_that_is_none_is_refused(run, tiny_recipe, content):
    (list_checkpoints(run / "checkpoints")[-1] / "state.json").write_bytes(content)
    with pytest.raises(ModelError) as error:
        train(read_recipe(tiny_recipe, SHORT), run)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_tensors_that_are_no_file_are_not_waited_for(run, tiny_recipe, kind):
    tensors = list_checkpoints(run / "checkpoints")[-1] / "state.safetensors"
    tensors.unlink()
    if kind == "pipe":
        os.mkfifo(tensors)
    else:
        tensors.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="is no file that a run wrote"):
        train(read_recipe(tiny_recipe, SHORT), run)
