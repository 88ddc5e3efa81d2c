"""Pictures as 8-bit pixels, by one policy for all readers; docs/pictures.md states it."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PIXELS_LIMIT = 1 << 26
FILE_LIMIT = 1 << 28
WHITE = 255

# EXIF tags.
_ORIENTATION = 0x0112
_DESCRIPTION = 0x010E
# Marks of the places where a PNG may keep its orientation.
_PNG_SAYS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_COLOURS = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
_GREYS = ("1", "L", "LA", "La")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")

Array = npt.NDArray[Any]


def decode_picture(
    blob: bytes, channels: int, size: int | tuple[int, int] | None = None, background: int = WHITE
) -> Tensor:
    """Returns the pixels uint8 [channels, H, W] of a picture file, turned upright.

    16-bit levels v become round(v/257), floating-point ones in [0, 1] round(255 v). Transparent pixels show the
    background: u = round((a u + (255 − a) background)/255). Grey is the luma of ITU-R 601, .299 R + .587 G + .114 B.
    Of an animation the first frame is read.

    Args:
        blob: the file.
        channels: 1 for grey, 3 for red, green and blue.
        size: (H, W), or the side of a square. The picture is resized (Lanczos, until it just covers this size) and
            centre-cropped to it; a picture of this size stays as it is.
        background: grey level, 0 to 255, behind transparent pixels.

    Raises:
        ValueError: for pixels that the policy has no rule for, more than 2²⁶ of them, or another number of channels.
        Exception: whatever Pillow raises for a damaged file.
    """
    if channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, not {channels}")
    with _opened(blob) as image:
        # The raw mode comes first, since a PNG may be decoded when it is asked for its orientation.
        rawmode = _rawmode(image)
        orientation = _orientation(image, blob)
        colours, alpha = _levels(image, blob, rawmode)
    if alpha is not None:
        colours = _over(colours, alpha[..., None], background)
    if colours.shape[2] > channels:
        colours = _luma(colours)
    pixels = _upright(np.broadcast_to(colours, (*colours.shape[:2], channels)), orientation)
    if size is not None:
        pixels = fitted(pixels, (size, size) if isinstance(size, int) else size, Image.Resampling.LANCZOS)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def picture_size(blob: bytes) -> tuple[int, int]:
    """Returns (H, W) of a picture file by its header, turned upright.

    Raises:
        Exception: as `decode_picture` does.
    """
    with _opened(blob) as image:
        width, height = image.size
        return (width, height) if _orientation(image, blob) >= 5 else (height, width)


def is_grey(blob: bytes) -> bool:
    """Returns whether the pixels of a picture file have no colours, by its header.

    Raises:
        Exception: as `decode_picture` does.
    """
    with _opened(blob) as image:
        return image.mode in _GREYS or image.mode.startswith(("I", "F"))


def picture_text(blob: bytes, key: str) -> str:
    """Returns a text entry of a picture file, or what follows `key:` in its comment or EXIF description.

    Raises:
        KeyError: where there is none.
        Exception: as `decode_picture` does.
    """
    with _opened(blob) as image:
        if key in image.info:
            return str(image.info[key])
        for found in (image.info.get("comment", ""), image.getexif().get(_DESCRIPTION, "")):
            text = found.decode() if isinstance(found, bytes) else str(found)
            if text.startswith(f"{key}:"):
                return text.removeprefix(f"{key}:")
    raise KeyError(key)


def _opened(blob: bytes) -> ImageFile:
    """The picture, its pixels not decoded.

    Pillow's own `open` only warns of a picture that is too large; its decoders are called here to refuse it.
    """
    Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(blob[:16]) is not True:
            continue
        try:
            image = factory(io.BytesIO(blob), "")
        except SyntaxError as error:
            raise ValueError(f"its {name} header is damaged ({error})") from error
        if image.width * image.height > PIXELS_LIMIT:
            raise ValueError(f"it has {image.width}×{image.height} pixels, at most {PIXELS_LIMIT:,} are read")
        return image
    raise ValueError(f"it is none of {', '.join(FORMATS)}")


def _orientation(image: ImageFile, blob: bytes) -> int:
    """Returns the turn that the pixels from Pillow need, by EXIF's numbers; those of a TIFF it turns itself."""
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in blob for mark in _PNG_SAYS)):
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


def _levels(image: ImageFile, blob: bytes, rawmode: str) -> tuple[Array, Array | None]:
    """Levels uint8 [H, W, 1 or 3] and opacity uint8 [H, W], None where all is opaque."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        if not (image.mode.startswith("I;16") and ";16" in rawmode) and image.format not in ("PNG", "PPM"):
            raise ValueError(f"its levels are {rawmode or image.mode} integers, whose range it does not say")
        grey = np.array(image).astype(np.int32)[..., None]
        return _of_16_bits(grey), None if key is None else _opacity(grey, key)
    if image.mode == "F":
        return _of_floats(np.array(image))[..., None], None
    if ";16" in rawmode:
        deep = _deep(image, blob, rawmode)
        alpha = deep[..., -1] if deep.shape[2] in (2, 4) else None
        colours = deep[..., : 1 if deep.shape[2] < 3 else 3]
        opacity = _of_16_bits(alpha) if alpha is not None else None if key is None else _opacity(colours, key)
        return _of_16_bits(colours), opacity
    if image.mode not in _GREYS + _COLOURS:
        raise ValueError(f"its mode {image.mode} has no rule to be read by")
    transparent = image.mode in _TRANSPARENT or key is not None
    mode = "L" if image.mode in _GREYS else "RGB"
    if transparent:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    levels = np.array(image.convert(mode))
    levels = levels.reshape(*levels.shape[:2], -1)
    return (levels[..., :-1], levels[..., -1]) if transparent else (levels, None)


def _rawmode(image: ImageFile) -> str:
    """Returns the layout of the levels in the file, by Pillow's name for it; empty where the decoder does not tell."""
    for tile in image.tile:
        found = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
        if isinstance(found, str):
            return found
    return ""


def _deep(image: ImageFile, blob: bytes, rawmode: str) -> Array:
    """Levels int32 [H, W, C] of 16 bits a channel, of which Pillow gives only the upper eight.

    The lower eight are had by telling its decoder that the bytes of a level stand the other way round; grey with an
    alpha, for which there is no such name, by telling it that a pixel is four bytes.
    """
    mode, _, order = rawmode.partition(";16")
    if rawmode == "LA;16B":
        upper_lower = _decoded_as(blob, "RGBA")
        return upper_lower[..., 0::2] * 256 + upper_lower[..., 1::2]
    if mode not in ("RGB", "RGBA") or order not in ("B", "L", "N"):
        raise ValueError(f"16 bits a channel stored as {rawmode} cannot be read whole")
    native = "L" if sys.byteorder == "little" else "B"
    other = {"B": "L", "L": "B"}[native if order == "N" else order]
    return np.array(image).astype(np.int32) * 256 + _decoded_as(blob, f"{mode};16{other}")


def _decoded_as(blob: bytes, rawmode: str) -> Array:
    with _opened(blob) as image:
        image.tile = [
            tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
            for tile in image.tile
        ]
        return np.array(image).astype(np.int32)


def _of_16_bits(levels: Array) -> Array:
    return ((levels + 128) // 257).astype(np.uint8)


def _of_floats(levels: Array) -> Array:
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError("its floating-point levels are not all in [0, 1]")
    return np.floor(levels.astype(np.float64) * 255 + 0.5).astype(np.uint8)


def _opacity(levels: Array, key: int | tuple[int, ...]) -> Array:
    """0 for pixels of the one colour that stands for none, 255 elsewhere."""
    return np.where((levels == np.array(key)).all(-1), 0, 255).astype(np.uint8)


def _over(levels: Array, alpha: Array, background: int) -> Array:
    opacity = alpha.astype(np.uint16)
    return ((levels * opacity + (255 - opacity) * np.uint16(background) + 127) // 255).astype(np.uint8)


def _luma(colours: Array) -> Array:
    """Y = .299 R + .587 G + .114 B in 16-bit fixed point, rounded."""
    red, green, blue = (colours[..., channel : channel + 1].astype(np.uint32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)


def _upright(pixels: Array, orientation: int) -> Array:
    """Pixels [H, W, C] turned as EXIF's orientation, 1 to 8, asks for."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def fitted(pixels: Array, size: tuple[int, int], method: Image.Resampling) -> Array:
    """Returns pixels uint8 [H', W', C] of a size (H', W') that pixels [H, W, C] were resized to cover, then cropped to.

    What is cut off is the same on both sides.
    """
    if pixels.shape[:2] == size:
        return pixels
    flat = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    cut = ImageOps.fit(Image.fromarray(flat), (size[1], size[0]), method)
    return np.array(cut).reshape(*size, -1)
