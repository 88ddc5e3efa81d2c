"""Image files in folders and zips: pixels, classes, sizes, and every way in which they can be wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import DataError, UsageError

CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def colours(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random picture [H, W, 3], uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def images(root: Path, **options: object):
    return trilemma.dataset("images", root=str(root), **options)


def planes(picture: np.ndarray) -> torch.Tensor:
    """[C, H, W] of a picture [H, W, C]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def test_pixels_labels_and_classes_come_back_as_they_were(place):
    pictures = {
        f"{label}/{k}.png": colours(5, 7, seed)
        for seed, (label, k) in enumerate([("plane", 10), ("bird", 2), ("bird", 1), ("cat", 0)])
    }
    data = images(place({name: encoded(picture) for name, picture in pictures.items()}))
    assert data.classes == ("bird", "cat", "plane")
    assert data.names == ("bird/1.png", "bird/2.png", "cat/0.png", "plane/10.png")
    assert data.labels.tolist() == [0, 0, 1, 2]
    assert data.shape == (3, 5, 7)
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(data.images, torch.stack([planes(pictures[name]) for name in data.names]))
    wanted = torch.tensor([3, 0, 3])
    batch, values = data.batch(wanted)
    assert torch.equal(data.read(wanted), data.images[wanted])
    assert torch.equal(batch, data.images[wanted] * (2 / 255) - 1)
    assert values["class"].tolist() == [2, 0, 2]


def test_images_in_no_folder_have_no_classes(place, one_line):
    root = place(
        {f"{k}.png": encoded(colours(3, 4, k)) for k in range(3)} | {".b/4.png": GOOD, "notes.txt": b""}
    )
    data = images(root)
    assert data.classes == ()
    assert data.labels.tolist() == [0, 0, 0]
    assert torch.equal(data.images, torch.stack([planes(colours(3, 4, k)) for k in range(3)]))
    with pytest.raises(UsageError, match="no folders of classes") as caught:
        images(root, classes=["a"])
    one_line(caught.value)


@pytest.mark.parametrize("test_names", [("a/1.png",), ("1.png",)])
def test_the_splits_are_both_in_folders_or_both_in_none(tmp_path, one_line, test_names):
    """Each way round: a class that training lacks, and an image of no class where training has some."""
    train_names = ("1.png",) if test_names == ("a/1.png",) else ("a/1.png",)
    for split, names in (("train", train_names), ("test", test_names)):
        for name in names:
            file = tmp_path / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(GOOD)
    spec = f"images:root='{tmp_path}/{{split}}'"
    assert len(trilemma.dataset(spec)) == 1
    with pytest.raises(DataError, match=r"of a class that is none|in no folder of a class") as caught:
        trilemma.dataset(spec, split="test")
    one_line(caught.value)


@pytest.mark.parametrize(
    "name", ["ein Hund", "a=b,c", "'\"", "[x]", "犬", "\u00e9\u0301", "0", "tab\there", "-"]
)
def test_a_class_may_have_any_name(place, name):
    data = images(place({f"{name}/1.png": GOOD, "z/2.png": GOOD}))
    assert data.classes == tuple(sorted([name, "z"]))
    assert [data.classes[label] for label in data.labels] == [file.rpartition("/")[0] for file in data.names]
    assert images(data.root, classes=["z", name]).classes == ("z", name)


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_a_mirrored_set_is_twice_as_long(place, cache_mb):
    files = {f"{'ab'[k % 2]}/{k}.png": encoded(colours(3, 5, k)) for k in range(4)}
    plain = images(place(files))
    data = images(plain.root, flip=True, cache_mb=cache_mb)
    assert (len(data), data.copies) == (8, 2)
    assert torch.equal(data.labels, plain.labels.repeat(2))
    assert torch.equal(data.images, torch.cat([plain.images, plain.images.flip(-1)]))
    chosen = torch.tensor([7, 0, 4, 3, 7])
    assert torch.equal(data.read(chosen), data.images[chosen])
    assert len(data.read(torch.empty(0, dtype=torch.int64))) == 0
    assert data.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("flip", [False, True])
def test_five_crops_are_the_centre_and_the_corners(place, cache_mb, mode, flip):
    """Each quarter has a colour of its own; a corner's crop begins with that of its quarter."""
    picture = np.zeros((16, 24, 3), dtype=np.uint8)
    picture[:8, :12], picture[:8, 12:], picture[8:, :12], picture[8:, 12:] = 40, 90, 150, 220
    root = place({"1.png": encoded(picture), "2.png": encoded(picture[::-1])})
    data = images(root, size=14, crops=5, flip=flip, mode=mode, cache_mb=cache_mb)
    assert len(data) == (20 if flip else 10)
    assert torch.equal(data.read(torch.arange(2)), images(root, size=14, mode=mode).images)
    first = data.read(torch.arange(2, 10, 2))
    wanted = {0: (0, 0, 40), 1: (0, -1, 90), 2: (-1, 0, 150), 3: (-1, -1, 220)}
    for which, (row, column, level) in wanted.items():
        assert (first[which, :, row, column] == level).all()
        top, left = (0 if row == 0 else 2), (0 if column == 0 else 10)  # 14 of the 16 rows, of the 24 columns
        exact = planes(picture[top : top + 14, left : left + 14])
        assert torch.equal(first[which], exact if mode == "RGB" else exact[:1])
    if flip:
        assert torch.equal(data.images[10:], data.images[:10].flip(-1))


def test_unreadable_images_are_counted_once_with_their_views(place, one_line):
    root = place({"1.png": GOOD, "2.png": b"no image"})
    data = images(root, size=4, crops=5, flip=True)
    with pytest.raises(DataError, match=r"cannot read 2\.png") as caught:
        data.check()
    assert "images:" not in one_line(caught.value)


def test_what_is_no_image_and_what_lies_around_is_left_out(place):
    data = images(
        place(
            {
                "set/a/1.png": encoded(colours(2, 2)),
                "set/b/2.JPG": encoded(colours(2, 2), "JPEG"),
                "set/a/notes.txt": b"no image",
                "set/a/.hidden.png": b"no image",
                "__MACOSX/set/a/._1.png": b"no image",
                "LICENSE": b"no image",
            }
        )
    )
    assert data.names == ("set/a/1.png", "set/b/2.JPG")
    assert data.classes == ("a", "b")


@pytest.mark.parametrize(("height", "width"), [(12, 6), (6, 12), (6, 6), (7, 6)])
def test_the_shorter_side_is_resized_and_the_centre_cropped(place, height, width):
    """Three stripes of colour along the longer side: the crop of the middle keeps its centre."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[height // 3 : height - height // 3, width // 3 : width - width // 3] = 255
    data = images(place({"a/1.png": encoded(picture)}), size=3)
    assert data.shape == (3, 3, 3)
    found = data.images[0].int()
    assert torch.equal(found, found.flip(1))
    assert torch.equal(found, found.flip(2))
    assert found[:, 1, 1].min() == found.max()


def test_a_crop_without_resizing_keeps_the_middle_pixels(place):
    picture = colours(4, 10)
    data = images(place({"a/1.png": encoded(picture)}), size=4)
    assert torch.equal(data.images[0], planes(picture[:, 3:7]))


def test_size_makes_images_of_every_size_and_kind_one(place):
    files = {
        "a/1.png": encoded(colours(9, 5)),
        "a/2.png": encoded(colours(5, 9)[:, :, 0]),  # grey
        "b/3.jpg": encoded(colours(20, 30), "JPEG"),
        "b/4.gif": encoded(colours(6, 6)[:, :, 0], "GIF"),  # a palette
    }
    data = images(place(files), size=4)
    assert data.images.shape == (4, 3, 4, 4)


def test_grey_is_luma(place):
    picture = colours(4, 4)
    data = images(place({"a/1.png": encoded(picture)}), mode="L")
    assert data.images.shape == (1, 1, 4, 4)
    luma = torch.from_numpy(picture.astype(np.float64) @ [0.299, 0.587, 0.114])  # ITU-R 601
    torch.testing.assert_close(data.images[0, 0].double(), luma, rtol=0, atol=1.0)


def test_a_photograph_is_turned_upright(place):
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    picture[:, :8] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter: white on top
    data = images(place({"a/1.jpg": encoded(picture, "JPEG", exif=exif)}))
    assert data.shape == (3, 16, 8)
    assert data.images[0, :, :7].float().mean() > 250
    assert data.images[0, :, 9:].float().mean() < 5


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_images_are_the_same_with_and_without_a_cache(place, cache_mb):
    files = {f"a/{k}.png": encoded(colours(3, 3, k)) for k in range(5)}
    data = images(place(files), cache_mb=cache_mb)
    for wanted in ([4, 0], [0, 4, 2], []):
        chosen = data.read(torch.tensor(wanted, dtype=torch.int64))
        assert chosen.shape == (len(wanted), 3, 3, 3)
        for image, index in zip(chosen, wanted, strict=True):
            assert torch.equal(image, planes(colours(3, 3, index)))


def test_a_zip_is_not_unpacked(tmp_path, place):
    root = place({"a/1.png": encoded(colours(3, 3))})
    before = sorted(tmp_path.rglob("*"))
    assert images(root).images.shape == (1, 3, 3, 3)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_split_stands_where_the_root_says(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for k in range(count):
            file = tmp_path / split / "a" / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(colours(2, 2, k)))
    spec = f"images:root='{tmp_path}/{{split}}'"
    assert len(trilemma.dataset(spec)) == 3
    assert len(trilemma.dataset(spec, split="train")) == 3
    assert len(trilemma.dataset(spec, split="test")) == 2
    with pytest.raises(UsageError, match=r"write \{split\} where"):
        images(tmp_path / "train", split="test")


def test_a_relative_root_is_looked_for_here_and_in_the_data_folder(tmp_path, monkeypatch, one_line):
    for folder, count in (("data/photos", 1), ("here/other", 2)):
        for k in range(count):
            file = tmp_path / folder / "a" / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(colours(2, 2)))
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    assert len(images(Path("photos"))) == 1
    assert len(images(Path("other"))) == 2
    with pytest.raises(DataError, match="TRILEMMA_DATA") as caught:
        images(Path("photoes"))
    assert f"no photoes in {tmp_path / 'here'}" in one_line(caught.value)


GOOD = encoded(colours(4, 4))
PLANES = planes(colours(4, 4))


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"a/1.png": GOOD, "a/2.png": GOOD, "b/3.png": encoded(colours(4, 6))},
            {},
            "b/3.png .* is 4×6, most are 4×4",
        ),
        ({"a/1.png": GOOD, "b/2.png": b"no image"}, {}, "cannot read b/2.png"),
        ({"a/1.png": GOOD, "b/2.png": GOOD[: len(GOOD) // 2]}, {"size": 4}, "cannot read b/2.png"),
        ({"a/1.png": GOOD, "b/2.png": GOOD[: len(GOOD) // 2]}, {}, "cannot read b/2.png"),
        ({"a/1.png": GOOD, "b/2.png": b""}, {"size": 4}, "cannot read b/2.png"),
        ({"a/notes.txt": b"x"}, {}, "holds no images"),
        ({"1.png": GOOD, "a/2.png": GOOD}, {}, "a/2.png .* lies in a folder, 1.png in none"),
        ({"1.png": GOOD, "a/b/2.png": GOOD}, {}, "a/b/2.png .* lies in a folder, 1.png in none"),
        ({"a/1.png": GOOD, "a/deeper/2.png": GOOD}, {}, "keep one folder a class"),
        ({"train/a/1.png": GOOD, "test/a/2.png": GOOD}, {}, r"write \{split\} in root="),
    ],
)
def test_what_cannot_be_used_is_an_error_of_one_line(place, one_line, files, options, message):
    root = place(files)
    with pytest.raises(DataError, match=message) as caught:
        _ = images(root, **options).images
    assert str(root) in one_line(caught.value)


def test_the_size_that_would_help_is_named(place):
    root = place({"a/1.png": GOOD, "a/2.png": GOOD, "b/3.png": encoded(colours(4, 6))})
    with pytest.raises(DataError, match="give size=4"):
        images(root)
    assert images(root, size=4).images.shape == (3, 3, 4, 4)


def test_a_damaged_member_of_a_zip_is_named(tmp_path, one_line):
    root = tmp_path / "x.zip"
    with zipfile.ZipFile(root, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/1.png", GOOD)
        archive.writestr("a/2.png", encoded(colours(4, 4, 1)))
    blob = bytearray(root.read_bytes())
    blob[blob.rindex(b"IDAT") + 12] ^= 1
    root.write_bytes(blob)
    with pytest.raises(DataError, match=r"cannot read a/2\.png") as caught:
        _ = images(root).images
    one_line(caught.value)


def test_a_missing_place_is_named(tmp_path, one_line):
    with pytest.raises(DataError, match="No such file") as caught:
        images(tmp_path / "none")
    assert str(tmp_path / "none") in one_line(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"something else"])
def test_what_is_neither_a_folder_nor_a_zip_is_refused(tmp_path, one_line, content):
    root = tmp_path / "x.zip"
    root.write_bytes(content)
    with pytest.raises(DataError, match="neither a folder nor a readable zip") as caught:
        images(root)
    assert str(root) in one_line(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": -3}, "size=-3"),
        ({"crops": 3, "size": 2}, "crops=3"),
        ({"crops": 5}, "crops=5 needs the size"),
        ({"flip": "sometimes"}, "flip='sometimes'"),
        ({"mode": "CMYK"}, "'RGB' or 'L'"),
        ({"sise": 3}, "did you mean 'size'"),
        ({"size": "big"}, "size='big'"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, message):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(GOOD)
    with pytest.raises(UsageError, match=message) as caught:
        images(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_the_root_is_required():
    with pytest.raises(UsageError, match="needs the option 'root'"):
        trilemma.dataset("images")


def test_the_cifar_zip_is_read_where_it_is(data_root, monkeypatch):
    if not (data_root / "cifar10-test.zip").is_file():
        pytest.skip(f"no cifar10-test.zip in {data_root}")
    monkeypatch.setenv("TRILEMMA_DATA", str(data_root))
    data = trilemma.dataset("images:root='cifar10-{split}.zip'", split="test")
    assert len(data) == 5000
    assert data.shape == (3, 32, 32)
    assert data.classes == CIFAR_CLASSES
    assert data.labels.bincount().tolist() == [500] * 10
    picked = torch.arange(0, 5000, 250)
    read = data.read(picked)
    assert read.dtype == torch.uint8
    assert read.float().std() > 40
    assert len({image.numpy().tobytes() for image in read}) == len(picked)
