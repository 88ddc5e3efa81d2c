"""Every format, mode and orientation gives exactly the pixels that docs/pictures.md says, whoever reads the file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import DataError, UsageError
from trilemma.files.picture import decode_picture, picture_size
from trilemma.files.request import read_images, read_mask

HEIGHT, WIDTH = 5, 7
RANDOM = np.random.default_rng(0)


def levels(*channels: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, high, (HEIGHT, WIDTH, *channels)).astype(dtype)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """round((a u + (255 − a) 255)/255), by its definition."""
    a = alpha[..., None].astype(float)
    return np.floor((a * colours + (255 - a) * 255) / 255 + 0.5).astype(np.uint8)


def of_16_bits(v: np.ndarray) -> np.ndarray:
    return np.rint(v / 257).astype(np.uint8)


def png_chunks(
    depth: int, kind: int, rows: bytes, extra: bytes = b"", size: tuple[int, int] = (HEIGHT, WIDTH)
) -> bytes:
    """A PNG by its bytes, for what Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk_of(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(values: np.ndarray, kind: int, exif: bytes | None) -> bytes:
    """A PNG of 16 bits a channel; rows filtered by their difference to the row above."""
    lines = values.astype(">u2").reshape(HEIGHT, -1).view(np.uint8).reshape(HEIGHT, -1)
    above = np.vstack([np.zeros_like(lines[:1]), lines[:-1]])
    rows = b"".join(b"\x02" + line.tobytes() for line in lines - above)
    return png_chunks(16, kind, rows, chunk_of(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"")


def tiff16(values: np.ndarray, order: str, packed: bool, orientation: int) -> bytes:
    """A TIFF of 16 bits a channel in one strip."""
    channels = values.shape[2]
    strip = values.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if packed else strip
    entries = [
        (256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, channels, None), (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2), (273, 4, 1, None), (274, 3, 1, orientation), (277, 3, 1, channels), (278, 3, 1, HEIGHT),
        (279, 4, 1, len(strip)), *([(338, 3, 1, 2)] if channels == 4 else []),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        if value is None:
            value, kind = (after, kind) if tag == 258 else (after + len(bits), 4)
        inline = kind == 3 and count == 1
        directory += struct.pack(f"{order}HHI", tag, kind, count)
        directory += struct.pack(f"{order}HH", value, 0) if inline else struct.pack(f"{order}I", value)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8) + directory + bytes(4) + bits + strip


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def saved(image: Image.Image, kind: str, orientation: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    if orientation != 1:
        options |= {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif_of(orientation)}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """An image by a palette of 16 colours, its colours, and its places in the palette."""
    colours, places = RANDOM.integers(0, 256, (16, 3)).astype(np.uint8), levels(high=16)
    image = Image.fromarray(places, "P")
    image.putpalette(colours.tobytes())
    return image, colours[places], places


Made = tuple[
    Callable[[int], bytes], np.ndarray
]  # the file of an orientation, and its colours [H, W, 1 or 3] at 1


def plain(kind: str, mode: str, **options: object) -> Made:
    channels = {"1": 1, "L": 1, "RGB": 3}[mode]
    source = levels(channels)
    image = Image.fromarray(source.squeeze())
    if mode == "1":
        source = np.where(source > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(source.squeeze()).convert("1")
    return lambda orientation: saved(image, kind, orientation, **options), source


def transparent(kind: str, mode: str, **options: object) -> Made:
    source = levels(len(mode))
    image = Image.fromarray(source, mode)
    return lambda orientation: saved(image, kind, orientation, **options), over_white(
        source[..., :-1], source[..., -1]
    )


def paletted(kind: str, **options: object) -> Made:
    image, colours, _ = palette()
    return lambda orientation: saved(image, kind, orientation, **options), colours


def paletted_transparent(kind: str, **options: object) -> Made:
    image, colours, places = palette()
    alpha = np.where(places == 3, 0, 255)
    return lambda orientation: saved(image, kind, orientation, transparency=3, **options), over_white(
        colours, alpha
    )


def paletted_half_transparent() -> Made:
    image, colours, places = palette()
    opacities = RANDOM.integers(0, 256, 16).astype(np.uint8)
    return (
        lambda orientation: saved(image, "PNG", orientation, transparency=opacities.tobytes()),
        over_white(colours, opacities[places]),
    )


def grey16(kind: str, mode: str = "I;16") -> Made:
    source = levels(high=1 << 16, dtype=np.uint16)
    source[0, :4] = 0, 128, 129, 65535  # 128/257 rounds to 0, 129/257 to 1
    stored = source.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (WIDTH, HEIGHT), stored.tobytes())
    return lambda orientation: saved(image, kind, orientation), of_16_bits(source)[..., None]


def grey_float() -> Made:
    source = RANDOM.random((HEIGHT, WIDTH)).astype(np.float32)
    source[0, :3] = 0, 1, 0.25
    return (
        lambda orientation: saved(Image.fromarray(source, "F"), "TIFF", orientation),
        np.floor(255 * source.astype(float) + 0.5).astype(np.uint8)[..., None],
    )


def png_of_16_bits(kind: int) -> Made:
    source = levels({2: 3, 4: 2, 6: 4}[kind], high=1 << 16, dtype=np.uint16)
    eight = of_16_bits(source)
    shown = eight if kind == 2 else over_white(eight[..., :-1], eight[..., -1])
    return (
        lambda orientation: png16(source, kind, None if orientation == 1 else exif_of(orientation)),
        shown,
    )


def tiff_of_16_bits(channels: int, order: str, packed: bool) -> Made:
    source = levels(channels, high=1 << 16, dtype=np.uint16)
    eight = of_16_bits(source)
    shown = eight if channels == 3 else over_white(eight[..., :3], eight[..., 3])
    return lambda orientation: tiff16(source, order, packed, orientation), shown


def keyed(mode: str) -> Made:
    """A PNG in which one colour stands for what is transparent."""
    source = levels(len(mode), high=4)
    key = source[2, 3]
    alpha = np.where((source == key).all(-1), 0, 255)
    image = Image.fromarray(source.squeeze())
    given = int(key[0]) if mode == "L" else tuple(map(int, key))
    return lambda orientation: saved(image, "PNG", orientation, transparency=given), over_white(source, alpha)


def keyed16() -> Made:
    source = levels(high=4, dtype=np.uint16) * 257
    key = int(source[2, 3])
    image = Image.frombytes("I;16", (WIDTH, HEIGHT), source.astype("<u2").tobytes())
    alpha = np.where(source == key, 0, 255)
    return (
        lambda orientation: saved(image, "PNG", orientation, transparency=key),
        over_white(of_16_bits(source)[..., None], alpha),
    )


def cmyk(kind: str) -> Made:
    """Pillow's conversion, (255 − c)(255 − k)/255, whatever the file makes of the inks."""
    image = Image.fromarray(levels(4), "CMYK")
    options: dict[str, object] = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    with Image.open(io.BytesIO(saved(image, kind, 1, **options))) as stored:
        shown = np.array(stored.convert("RGB"))
    return lambda orientation: saved(image, kind, orientation, **options), shown


def jpeg(mode: str) -> Made:
    """What is lost is what any decoder gives for the same file without an orientation."""
    image = Image.fromarray(levels(3) if mode == "RGB" else levels())
    with Image.open(io.BytesIO(saved(image, "JPEG", 1, quality=100))) as stored:
        shown = np.array(stored).reshape(HEIGHT, WIDTH, -1)
    return lambda orientation: saved(image, "JPEG", orientation, quality=100), shown


def animated(kind: str, **options: object) -> Made:
    first, second = levels(3, high=2) * 255, levels(3)  # eight colours, which a palette holds
    frames = [Image.fromarray(second)]
    return (
        lambda orientation: saved(
            Image.fromarray(first), kind, orientation, save_all=True, append_images=frames, **options
        ),
        first,
    )


def portable16() -> Made:
    source = levels(high=1 << 16, dtype=np.uint16)
    head = f"P5 {WIDTH} {HEIGHT} 65535\n".encode()
    return lambda orientation: head + source.astype(">u2").tobytes(), of_16_bits(source)[..., None]


TURNED = {"PNG", "WEBP", "JPEG", "TIFF"}
MATRIX: dict[str, Callable[[], Made]] = {
    **{f"PNG {mode}": (lambda mode=mode: plain("PNG", mode)) for mode in ("1", "L", "RGB")},
    **{f"PNG {mode}": (lambda mode=mode: transparent("PNG", mode)) for mode in ("LA", "RGBA")},
    "PNG P": lambda: paletted("PNG"),
    "PNG P transparent": lambda: paletted_transparent("PNG"),
    "PNG P half transparent": paletted_half_transparent,
    "PNG L keyed": lambda: keyed("L"),
    "PNG RGB keyed": lambda: keyed("RGB"),
    "PNG I;16": lambda: grey16("PNG"),
    "PNG I;16 keyed": keyed16,
    "PNG RGB 16": lambda: png_of_16_bits(2),
    "PNG LA 16": lambda: png_of_16_bits(4),
    "PNG RGBA 16": lambda: png_of_16_bits(6),
    "PNG animated": lambda: animated("PNG"),
    "WEBP RGB": lambda: plain("WEBP", "RGB", lossless=True),
    "WEBP RGBA": lambda: transparent("WEBP", "RGBA", lossless=True, exact=True),
    "WEBP animated": lambda: animated("WEBP", lossless=True),
    "JPEG L": lambda: jpeg("L"),
    "JPEG RGB": lambda: jpeg("RGB"),
    "JPEG CMYK": lambda: cmyk("JPEG"),
    "GIF P": lambda: paletted("GIF"),
    "GIF P transparent": lambda: paletted_transparent("GIF"),
    "GIF animated": lambda: animated("GIF"),
    **{f"BMP {mode}": (lambda mode=mode: plain("BMP", mode)) for mode in ("1", "L", "RGB")},
    "BMP P": lambda: paletted("BMP"),
    **{f"TIFF {mode}": (lambda mode=mode: plain("TIFF", mode)) for mode in ("1", "L", "RGB")},
    **{f"TIFF {mode}": (lambda mode=mode: transparent("TIFF", mode)) for mode in ("LA", "RGBA")},
    "TIFF RGB lzw": lambda: plain("TIFF", "RGB", compression="tiff_lzw"),
    "TIFF P": lambda: paletted("TIFF"),
    "TIFF CMYK": lambda: cmyk("TIFF"),
    "TIFF I;16": lambda: grey16("TIFF"),
    "TIFF I;16B": lambda: grey16("TIFF", "I;16B"),
    "TIFF F": grey_float,
    **{
        f"TIFF {channels} of 16 {order}{' deflate' if packed else ''}": (
            lambda channels=channels, order=order, packed=packed: tiff_of_16_bits(channels, order, packed)
        )
        for channels in (3, 4)
        for order in "<>"
        for packed in (False, True)
    },
    "TIFF pages": lambda: animated("TIFF"),
    "PPM L": lambda: plain("PPM", "L"),
    "PPM RGB": lambda: plain("PPM", "RGB"),
    "PPM 16": portable16,
}

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: np.rot90,
}


def luma(colours: np.ndarray) -> np.ndarray:
    """ITU-R 601, in the fixed point that all of Pillow's readers know."""
    return ((colours.astype(int) @ [19595, 38470, 7471] + 0x8000) >> 16).astype(np.uint8)[..., None]


def through_both(tmp_path: Path, blob: bytes, suffix: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """[H, W, C] as the data set reads a file, and as --start, --known and --mask do."""
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"1.{suffix}"
    path.write_bytes(blob)
    data = trilemma.dataset("images", root=str(folder.parent), mode="RGB" if channels == 3 else "L")
    pixels = data.images[0]
    x = read_images(path, data.shape)[0]
    path.unlink()
    assert torch.equal((x + 1).mul(127.5).round().to(torch.uint8), pixels)
    torch.testing.assert_close(x, data_range(pixels), rtol=0, atol=1e-6)
    return pixels.permute(1, 2, 0).numpy(), (x + 1).mul(127.5).round().byte().permute(1, 2, 0).numpy()


def data_range(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 127.5 - 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MATRIX)
def test_pixels_are_exactly_those_of_the_policy(tmp_path: Path, name: str) -> None:
    kind = name.split()[0]
    make, colours = MATRIX[name]()
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    orientations = range(1, 9) if kind in TURNED else (1,)
    for orientation in orientations:
        blob = make(orientation)
        for channels in (1, 3):
            expected = luma(colours) if channels < colours.shape[2] else colours
            expected = TURNS[orientation](np.broadcast_to(expected, (HEIGHT, WIDTH, channels)))
            for found in through_both(tmp_path, blob, suffix, channels):
                np.testing.assert_array_equal(found, expected, err_msg=f"orientation {orientation}")


def test_an_orientation_behind_the_pixels_is_found_without_decoding_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PNG lets eXIf follow IDAT; what has no mark of one is not decoded to look for it."""
    exif = chunk_of(b"eXIf", exif_of(6).removeprefix(b"Exif\0\0"))
    blob = saved(Image.fromarray(levels(3)), "PNG", 1)
    after = blob.replace(chunk_of(b"IEND", b""), exif + chunk_of(b"IEND", b""))
    assert picture_size(after) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(decode_picture(after, 3), decode_picture(blob, 3).rot90(-1, (1, 2)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the picture was decoded"))
    assert picture_size(blob) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(("background", "shown"), [(0, 0), (255, 255), (128, 128)])
def test_the_background_of_a_data_set_is_an_option(tmp_path: Path, background: int, shown: int) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (2, 2), (9, 9, 9, 0)).save(tmp_path / "a" / "1.png")
    data = trilemma.dataset("images", root=str(tmp_path), background=background)
    assert data.images.unique().tolist() == [shown]


def refused(tmp_path: Path, blob: bytes, suffix: str) -> tuple[str, str]:
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    (folder / f"1.{suffix}").write_bytes(blob)
    with pytest.raises(DataError) as of_the_set:
        trilemma.dataset("images", root=str(folder.parent), size=4).check()
    with pytest.raises(UsageError) as of_a_request:
        read_images(folder / f"1.{suffix}", (3, 4, 4))
    return str(of_the_set.value), str(of_a_request.value)


def float_tiff(value: float) -> bytes:
    return saved(Image.fromarray(np.full((4, 4), value, np.float32), "F"), "TIFF", 1)


LAB = saved(Image.merge("LAB", [Image.new("L", (4, 4), 99)] * 3), "TIFF", 1)
WHOLE = saved(Image.fromarray(levels(3)), "PNG", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("blob", "suffix", "message"),
    [
        (
            saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF", 1),
            "tif",
            "whose range it does not say",
        ),
        (float_tiff(1.5), "tif", "not all in [0, 1]"),
        (float_tiff(-0.1), "tif", "not all in [0, 1]"),
        (float_tiff(float("nan")), "tif", "not all in [0, 1]"),
        (LAB, "tif", "mode LAB has no rule"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "png", "none of PNG, JPEG"),
        (b"", "png", "none of PNG, JPEG"),
        (WHOLE[:-30], "png", "image file is truncated"),
        (WHOLE[:20], "png", "Truncated File Read"),
        (png_chunks(1, 0, b"", size=(100_000, 100_000)), "png", "at most 67,108,864 are read"),
        (png_chunks(8, 2, b"\0" * 100, size=(8192, 8193)), "png", "at most 67,108,864 are read"),
    ],
)
def test_what_the_policy_has_no_rule_for_is_refused_by_both(tmp_path, blob, suffix, message) -> None:
    for said in refused(tmp_path, blob, suffix):
        assert message in said
        assert "\n" not in said
        assert ";" in said


# --- pictures of any size for a request


def photo(path: Path, height: int, width: int, mode: str = "RGB") -> Path:
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 17), (5, 9), (16, 30)])
def test_a_request_resizes_as_a_data_set_does(tmp_path: Path, height: int, width: int) -> None:
    (tmp_path / "a").mkdir()
    path = photo(tmp_path / "a" / "1.png", height, width)
    data = trilemma.dataset("images", root=str(tmp_path), size=16)
    told: list[str] = []
    x = read_images(path, (3, 16, 16), told.append)
    assert torch.equal(x, data_range(data.images))
    assert told == [
        f"{path}: {height}×{width} (H×W) resized to cover 16×16 (lanczos) and cropped at the centre"
    ]


def test_a_picture_of_the_right_size_is_left_alone(tmp_path: Path) -> None:
    path = photo(tmp_path / "x.png", 24, 16)
    told: list[str] = []
    x = read_images(path, (3, 24, 16), told.append)
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert torch.equal(x[0], data_range(pixels))
    read_mask(path, (3, 24, 16), told.append)
    assert told == []


def test_the_centre_is_kept_and_as_much_is_cut_off_on_either_side(tmp_path: Path) -> None:
    """Of 10×30, covering 10×20, the columns 5 to 24 are kept, of 30×10 the rows."""
    columns = np.arange(30, dtype=np.uint8)[None].repeat(10, 0) * 8
    Image.fromarray(columns).save(tmp_path / "wide.png")
    Image.fromarray(columns.T.copy()).save(tmp_path / "high.png")
    wide = read_images(tmp_path / "wide.png", (1, 10, 20))
    high = read_images(tmp_path / "high.png", (1, 20, 10))
    expected = data_range(torch.from_numpy(columns[None, None, :, 5:25].copy()))
    assert torch.equal(wide, expected)
    assert torch.equal(high, expected.mT)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7000, 3), (27, 28), (300, 400)])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 32, 48), (3, 1, 1)])
def test_pictures_of_any_form_have_the_models_shape(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    path = photo(tmp_path / "x.png", *size)
    x, mask = read_images(path, shape), read_mask(path, shape)
    assert x.shape == (1, *shape)
    assert mask.shape == (1, 1, *shape[1:])
    assert x.abs().max() <= 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_a_mask_takes_the_nearest_pixel(tmp_path: Path) -> None:
    """Every pixel becomes 3×3 of itself, and those of 3×3 one: nothing between 0 and 1 is made up."""
    small = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.uint8) * 255
    Image.fromarray(small).save(tmp_path / "small.png")
    Image.fromarray(small.repeat(3, 0).repeat(3, 1)).save(tmp_path / "large.png")
    expected = torch.from_numpy(small > 0)[None, None].float()
    assert torch.equal(read_mask(tmp_path / "large.png", (3, 8, 8)), expected)
    grown = expected.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(read_mask(tmp_path / "small.png", (3, 24, 24)), grown)


def test_an_array_of_another_size_is_still_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", samples=np.zeros((1, 3, 9, 9), np.float32))
    with pytest.raises(UsageError, match=r"is of shape \(1, 3, 9, 9\), expected \(n, 3, 8, 8\)"):
        read_images(tmp_path / "x.npz", (3, 8, 8))
