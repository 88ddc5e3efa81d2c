"""A small set of pictures with the metadata of the emoji."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "orange")
SHAPES = ("circle", "square", "bar")
STYLES = ("noto", "twemoji")
# Of a colour and a shape that are never seen together in training.
APART = ("a green circle", "a blue bar")


def write(path: Path, side: int = 64) -> Path:
    """Writes 24 pictures, 4 of them in the split `test-combination`, and returns the path of the zip."""
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for style in STYLES:
            for colour in COLOURS:
                for shape in SHAPES:
                    name, text = f"{style}/{colour}-{shape}.png", f"a {colour} {shape}"
                    archive.writestr(name, _picture(colour, shape, style, side))
                    split = "test-combination" if text in APART else "train"
                    about = {
                        "file_name": name,
                        "text": text,
                        "style": style,
                        "subgroup": shape,
                        "split": split,
                    }
                    rows.append(json.dumps(about))
        archive.writestr("metadata.jsonl", "\n".join(rows))
    return path


def _picture(colour: str, shape: str, style: str, side: int) -> bytes:
    image = Image.new("RGB", (side, side), "white")
    pen, border = ImageDraw.Draw(image), "black" if style == "noto" else colour
    low, high = side // 5, side - side // 5
    match shape:
        case "circle":
            pen.ellipse((low, low, high, high), colour, border)
        case "square":
            pen.rectangle((low, low, high, high), colour, border)
        case _:
            pen.rectangle((low, side * 2 // 5, high, side * 3 // 5), colour, border)
    written = io.BytesIO()
    image.save(written, "png")
    return written.getvalue()
