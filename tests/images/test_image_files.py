"""Which files of a folder or zip are images of which class: links, names, splits, and what cannot be read."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import DataError, UsageError
from trilemma.evaluate import Evaluator
from trilemma.train import read_recipe, train
from trilemma_plugins.images import pictures as images_module


def png(level: int = 0, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(root: Path, *names: str, level: int = 0) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(level))
    return root


def images(root: Path | str, **options: object):
    return trilemma.dataset("images", root=str(root), **options)


# --- links


def test_folders_and_files_behind_links_are_there(tmp_path):
    store = lay_out(tmp_path / "store", "cats/1.png", "cats/2.png", "3.png")
    root = lay_out(tmp_path / "set", "dogs/1.png")
    (root / "cats").symlink_to(store / "cats")
    (root / "dogs" / "2.png").symlink_to(store / "3.png")
    data = images(root)
    assert data.classes == ("cats", "dogs")
    assert data.names == ("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png")
    (tmp_path / "link").symlink_to(root)
    assert images(tmp_path / "link").names == data.names


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_to_a_folder_around_it_is_refused(tmp_path, one_line, target):
    root = lay_out(tmp_path / "set", "a/1.png")
    (root / "a" / "loop").symlink_to(target)
    with pytest.raises(DataError, match="link to a folder that it lies in") as caught:
        images(root)
    assert "loop" in one_line(caught.value)


# --- names


@pytest.mark.parametrize("name", ["./a/1.png", "a//1.png", ".//a/./1.png", "a\\1.png"])
def test_a_members_name_is_what_it_means(tmp_path, name):
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr(name, png(7))
    data = images(root)
    assert data.names == ("a/1.png",)
    assert data.images.unique().tolist() == [7]


@pytest.mark.parametrize(
    "name", ["../a/1.png", "a/../../1.png", "/a/1.png", "a/../1.png", "C:/a/1.png", "\\a\\1.png"]
)
def test_a_member_that_leads_out_is_refused(tmp_path, one_line, name):
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr(name, png())
    with pytest.raises(DataError, match="leads out of it") as caught:
        images(root)
    one_line(caught.value)


@pytest.mark.parametrize("other", ["a/1.png", "./a/1.png", "a//1.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_comes_twice_is_refused(tmp_path, one_line, other):
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("a/1.png", png())
        archive.writestr(other, png(9))
    with pytest.raises(DataError, match=r"a/1\.png twice") as caught:
        images(root)
    one_line(caught.value)


def test_what_file_managers_leave_is_skipped(place):
    left = [
        ".DS_Store",
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/desktop.ini",
        "__MACOSX/a/._1.png",
        "a/._1.png",
        ".git/x.png",
    ]
    data = images(place({**dict.fromkeys(left, b"left"), "a/1.png": png()}))
    assert (data.names, data.classes) == (("a/1.png",), ("a",))


def test_a_name_that_is_not_in_utf_8_is_refused(tmp_path, one_line):
    for number, name in enumerate([b"caf\xe9/1.png", b"a/caf\xe9.png"]):
        root = os.fsencode(tmp_path) + b"/%d/" % number + name
        os.makedirs(os.path.dirname(root))
        Path(os.fsdecode(root)).write_bytes(png())
        with pytest.raises(DataError, match="not text in UTF-8") as caught:
            images(tmp_path / str(number))
        assert "caf\\xe9" in one_line(caught.value)
        one_line(caught.value).encode()


def test_a_members_name_in_utf_8_that_is_not_said_to_be_is_read_so(tmp_path):
    """As older programs write zips; Python takes such a name for one in the code page 437."""
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("café/1.png", png())
    blob = bytearray(root.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        blob[blob.index(mark) + offset + 1] &= ~0x08
    root.write_bytes(blob)
    assert images(root).classes == ("café",)


def test_a_members_name_that_is_said_to_be_in_utf_8_and_is_not_is_refused(tmp_path, one_line):
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("café/1.png", png())
    root.write_bytes(root.read_bytes().replace("é".encode(), b"\xe9\xe9"))
    with pytest.raises(DataError, match="neither a folder nor a readable zip") as caught:
        images(root)
    one_line(caught.value)


# --- classes and splits


@pytest.mark.parametrize("kind", ["folders", "zips"])
def test_a_label_means_the_same_class_in_every_split(tmp_path, kind):
    lay_out(tmp_path, *(f"train/{name}/1.png" for name in ("ant", "bee", "cow")))
    lay_out(tmp_path, "test/bee/1.png", "test/cow/1.png", "test/cow/2.png")
    root = f"{tmp_path}/{{split}}"
    if kind == "zips":
        for split in ("train", "test"):
            with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as archive:
                for file in sorted((tmp_path / split).rglob("*.png")):
                    archive.write(file, file.relative_to(tmp_path / split))
        root += ".zip"
    training, test = (images(root, split=split) for split in ("train", "test"))
    assert training.classes == test.classes == ("ant", "bee", "cow")
    assert (training.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [1, 2, 2])


def test_the_order_of_the_classes_can_be_declared(tmp_path, one_line):
    root = lay_out(tmp_path, "test/ant/1.png", "test/bee/1.png")
    declared = images(f"{root}/{{split}}", split="test", classes=["bee", "cow", "ant"])
    assert declared.classes == ("bee", "cow", "ant")
    assert declared.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="those of the training split, which cannot be read") as caught:
        images(f"{root}/{{split}}", split="test")
    assert "give classes=" in one_line(caught.value)
    with pytest.raises(UsageError, match="give each once"):
        images(root / "test", classes=["ant", "bee", "ant"])


def test_a_class_that_training_does_not_know_is_refused(tmp_path, one_line):
    lay_out(tmp_path, "train/ant/1.png", "test/ant/1.png", "test/bee/1.png")
    with pytest.raises(DataError, match=r"bee/1\.png .*is of a class that is none") as caught:
        images(f"{tmp_path}/{{split}}", split="test")
    one_line(caught.value)


@pytest.mark.parametrize("spec", ["mnist", "digits", "mixture2d"])
def test_every_other_data_set_has_one_order_of_classes(spec, tiny_splits):
    options = {"root": str(tiny_splits)} if spec == "mnist" else {}
    training, test = (trilemma.dataset(spec, split=split, **options) for split in ("train", "test"))
    assert training.classes == test.classes
    assert int(max(training.labels.max(), test.labels.max())) < len(training.classes)


@pytest.fixture
def tiny_splits(tmp_path) -> Path:
    """Five images a split in the IDX format; the test split has other labels than the training split."""
    for split, labels in (("train", range(5)), ("t10k", range(5, 10))):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3, *[0, 0, 0, 5] * 3]) + bytes(125)
        )
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 5, *labels]))
    return tmp_path


# --- what cannot be read


def spoilt(root: Path) -> Path:
    """Ten images of which five cannot be read, each for a reason of its own."""
    lay_out(root, *(f"a/{k}.png" for k in range(10)))
    (root / "a/1.png").write_bytes(b"no image")
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)).save(noise, "PNG")
    (root / "a/3.png").write_bytes(noise.getvalue()[:-30])
    (root / "a/5.png").unlink()
    (root / "a/5.png").symlink_to("nowhere.png")
    (root / "a/7.png").unlink()
    os.mkfifo(root / "a/7.png")
    (root / "a/8.png").unlink()
    (root / "a/8.png").symlink_to("/dev/zero")
    return root


def test_all_that_cannot_be_opened_is_listed_at_once(tmp_path, one_line):
    with pytest.raises(DataError) as caught:
        images(spoilt(tmp_path / "x"))
    said = one_line(caught.value)
    assert "cannot read 4 of 10 images" in said  # the header of the fifth is whole
    assert "a/1.png" in said
    assert "a/5.png" in said
    assert "a/7.png (it is a pipe, not a regular file), …" in said
    assert len(said) < 300


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_all_that_cannot_be_decoded_is_listed_before_the_first_step(tmp_path, one_line, cache_mb):
    root = spoilt(tmp_path / "x")
    (tmp_path / "recipe.toml").write_text(
        f"""
        steps = 1
        batch_size = 2
        dataset = {{ spec = "images:root='{root}',size=8,cache_mb={cache_mb}" }}
        process = {{ spec = "vp:T=50" }}
        objective = {{ spec = "simple" }}
        denoiser = {{ options = {{ channels = [8], blocks = 1, groups = 4 }} }}
        """
    )
    with pytest.raises(DataError, match="cannot read 5 of 10 images") as caught:
        train(read_recipe(tmp_path / "recipe.toml"), tmp_path / "run")
    assert "a/3.png" in one_line(caught.value)
    assert not (tmp_path / "run").exists()
    images(root, size=8, checked=False).check()


def test_a_batch_lists_all_that_it_cannot_read(tmp_path, one_line):
    data = images(spoilt(tmp_path / "x"), size=4)
    with pytest.raises(DataError, match="cannot read 2 of 10 images") as caught:
        data.read(torch.tensor([0, 1, 3]))
    one_line(caught.value)


# --- how often images are decoded


@pytest.fixture
def decodes(monkeypatch) -> Counter:
    """How often each picture was decoded, by its bytes."""
    counted: Counter = Counter()
    decode = images_module.decode_picture
    monkeypatch.setattr(
        images_module, "decode_picture", lambda blob, *rest: counted.update([blob]) or decode(blob, *rest)
    )
    return counted


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_an_evaluation_decodes_each_image_once(tmp_path, decodes, cache_mb):
    for split in ("train", "test"):
        for k in range(12):
            path = tmp_path / split / f"c{k % 3}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(10 * k + (split == "test"), size=28))
    evaluator = Evaluator(
        dataset=f"images:root='{tmp_path}/{{split}}',mode=L,cache_mb={cache_mb}",
        features="mnist-features",
        metrics=("precision:k=1", "frechet", "recall:k=1"),
    )
    assert evaluator.reference_counts == {"precision:k=1": 12, "frechet": 12, "recall:k=1": 12}
    assert not decodes
    assert evaluator.accumulated_reference
    assert sorted(decodes.values()) == [1] * 12
    evaluator.measure((torch.zeros(4, 1, 28, 28, dtype=torch.uint8), None) for _ in range(2))
    assert sorted(decodes.values()) == [1] * 12
    assert evaluator.baseline["images"] == 12
    assert sorted(decodes.values()) == [1] * 24


def test_what_is_kept_is_decoded_once(tmp_path, decodes):
    for k in range(4):
        lay_out(tmp_path, f"a/{k}.png", level=k)
    data = images(tmp_path)
    assert not decodes
    data.check()
    for _ in range(3):
        data.read(torch.tensor([3, 3, 0, 1]))
    assert sorted(decodes.values()) == [1] * 4
