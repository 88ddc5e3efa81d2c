"""MNIST: the real files bit for bit, and every way in which IDX files can be broken."""

from __future__ import annotations

import gzip
import hashlib
import struct

import pytest
import torch

import trilemma
from trilemma.errors import DataError, UsageError
from trilemma_plugins.mnist.idx import read_idx

TRAINING_IMAGES_MD5 = "6bbc9ace898e44ae57da46a324031adb"  # of train-images-idx3-ubyte, unpacked


def idx(*sizes: int, seed: int = 0, high: int = 256) -> bytes:
    """An IDX file of random bytes below `high`."""
    data = torch.randint(high, sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return struct.pack(f">I{len(sizes)}I", 0x800 + len(sizes), *sizes) + data.numpy().tobytes()


@pytest.fixture
def root(tmp_path):
    """Seven training images of 3×2, unpacked."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(7, 3, 2))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(7, high=10))
    return tmp_path


@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_the_real_files_are_all_there(data_root, split, count):
    data = trilemma.dataset(f"mnist:split={split}", root=str(data_root / "mnist"))
    assert len(data) == count
    assert data.shape == (1, 28, 28)
    assert data.images.shape == (count, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789")
    assert data.labels.unique().tolist() == list(range(10))


def test_the_training_images_are_the_original_bytes(data_root):
    images = trilemma.dataset("mnist", root=str(data_root / "mnist")).images
    original = struct.pack(">4I", 0x803, 60_000, 28, 28) + images.numpy().tobytes()
    assert hashlib.md5(original, usedforsecurity=False).hexdigest() == TRAINING_IMAGES_MD5


def test_the_data_folder_of_the_environment_is_found(root, monkeypatch):
    folder = root / "data"
    folder.mkdir()
    (folder / "mnist").symlink_to(root)
    monkeypatch.setenv("TRILEMMA_DATA", str(folder))
    assert len(trilemma.dataset("mnist")) == 7


def test_packed_and_unpacked_files_agree(root):
    plain = trilemma.dataset("mnist", root=str(root))
    for file in list(root.iterdir()):
        (root / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = trilemma.dataset("mnist", root=str(root))
    assert torch.equal(packed.images, plain.images)
    assert torch.equal(packed.labels, plain.labels)


def test_a_batch_maps_bytes_onto_minus_one_to_one(root):
    levels = torch.arange(256, dtype=torch.uint8)
    (root / "train-images-idx3-ubyte").write_bytes(
        struct.pack(">4I", 0x803, 256, 1, 1) + bytes(levels.tolist())
    )
    (root / "train-labels-idx1-ubyte").write_bytes(
        struct.pack(">2I", 0x801, 256) + bytes(i % 10 for i in range(256))
    )
    data = trilemma.dataset("mnist", root=str(root))
    images, values = data.batch(torch.arange(255, -1, -1))
    assert images.shape == (256, 1, 1, 1)
    assert images.dtype == torch.float32
    assert (images[-1].item(), images[0].item()) == (-1.0, 1.0)
    torch.testing.assert_close(
        images.flatten().flip(0).double(), levels.double() / 127.5 - 1, rtol=0, atol=2e-7
    )
    assert values["class"].tolist() == [i % 10 for i in range(255, -1, -1)]
    # Levels are further apart than float32 rounds, so that no two become one and all can be had back.
    assert torch.equal(images.add(1).mul(127.5).round().flatten().flip(0).to(torch.uint8), levels)
    half, _ = data.batch(torch.arange(256), torch.bfloat16)
    assert torch.equal(half, images.flip(0).to(torch.bfloat16))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "begin with 00 00 08"),
        (IMAGES, b"\x00\x00\x08", "begin with 00 00 08"),
        (IMAGES, b"\x00\x00\x0d" + idx(7, 3, 2)[3:], "begin with 00 00 08"),
        (IMAGES, b"GIF8" + idx(7, 3, 2)[4:], "begin with 00 00 08"),
        (IMAGES, idx(7, 3, 2)[:10], "inside its header"),
        (IMAGES, idx(7, 3, 2)[:-1], "holds 41 bytes of data, its header promises 42"),
        (IMAGES, idx(7, 3, 2) + b"\x00", "holds 43 bytes of data, its header promises 42"),
        (IMAGES, struct.pack(">4I", 0x803, *[2**32 - 1] * 3), "holds 0 bytes of data"),
        (IMAGES, gzip.compress(idx(7, 3, 2), mtime=0)[:-4], "cannot read"),
        (IMAGES, gzip.compress(idx(7, 3, 2), mtime=0)[:5], "cannot read"),
        (IMAGES, b"\x1f\x8b" + idx(7, 3, 2), "cannot read"),
        (IMAGES, idx(6, 3, 2), "do not belong together"),
        (IMAGES, idx(7, 3), "do not belong together"),
        (IMAGES, idx(7, 3, 2, 1), "do not belong together"),
        (LABELS, idx(8, high=10), "do not belong together"),
        (LABELS, idx(7, 1, high=10), "do not belong together"),
        (LABELS, struct.pack(">2I", 0x801, 7) + b"\x01\x02\x03\x0a\x01\x02\x03", "label 10"),
    ],
)
def test_a_malformed_file_is_an_error_of_one_line(root, one_line, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        trilemma.dataset("mnist", root=str(root))
    assert str(root) in one_line(caught.value)


def test_a_bit_flipped_in_a_packed_file_is_noticed(root):
    blob = bytearray(gzip.compress((root / LABELS).read_bytes()))
    blob[-6] ^= 1  # in the checksum
    (root / LABELS).write_bytes(blob)
    with pytest.raises(DataError, match="CRC"):
        trilemma.dataset("mnist", root=str(root))


def test_every_truncation_is_noticed(root):
    blob = idx(3, 2, 2)
    for length in range(len(blob)):
        (root / IMAGES).write_bytes(blob[:length])
        with pytest.raises(DataError, match="restore the file"):
            read_idx(root / IMAGES)


def test_no_images_at_all_is_a_tensor_of_none(tmp_path):
    (tmp_path / "none").write_bytes(idx(0, 28, 28))
    assert read_idx(tmp_path / "none").shape == (0, 28, 28)


def test_a_missing_file_is_named(root, one_line):
    (root / LABELS).unlink()
    with pytest.raises(DataError) as caught:
        trilemma.dataset("mnist", root=str(root))
    assert LABELS in one_line(caught.value)
    assert str(root) in str(caught.value)


def test_a_missing_folder_names_where_it_looked(tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILEMMA_DATA", "nowhere")
    with pytest.raises(DataError) as caught:
        trilemma.dataset("mnist")
    assert "nowhere/mnist" in one_line(caught.value)
    assert "TRILEMMA_DATA" in str(caught.value)


def test_without_the_variable_the_folder_data_is_searched_and_no_other(tmp_path, root, monkeypatch, one_line):
    monkeypatch.delenv("TRILEMMA_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for elsewhere in (tmp_path / "shared" / "data", tmp_path / "data"):
        elsewhere.mkdir(parents=True)
        (elsewhere / "mnist").symlink_to(root)
    with pytest.raises(
        DataError, match=r"no data at data/mnist; put the files train- and t10k-images"
    ) as caught:
        trilemma.dataset("mnist")
    assert "https://" in one_line(caught.value)
    assert len(str(caught.value)) < 300
    (tmp_path / "work" / "data").mkdir()
    (tmp_path / "work" / "data" / "mnist").symlink_to(root)
    assert len(trilemma.dataset("mnist")) == 7


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="expected train or test"):
        trilemma.dataset("mnist:split=validation")
