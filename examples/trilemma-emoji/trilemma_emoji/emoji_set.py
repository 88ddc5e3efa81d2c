"""The set of emoji, built from three npm packages."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

# Folders of the pictures in the packages, by style.
PICTURES = {
    "noto": "emoji-datasource-google/img/google/64",
    "twemoji": "emoji-datasource-twitter/img/twitter/64",
}
WORDS = "emojibase-data/en"
# Versions that the models were trained on.
PACKAGES = "emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 emojibase-data@17.0.0"
LICENCES = """noto/: Noto Emoji, Google, Apache License 2.0.
twemoji/: Twemoji, Twitter and contributors, CC-BY 4.0.
Captions: emojibase-data (MIT), from Unicode CLDR.
"""
WHEN = (2026, 1, 1, 0, 0, 0)


def command(
    modules: Annotated[Path, typer.Argument(help="Folder node_modules with the three packages.")],
    out: Annotated[Path, typer.Option(help="Zip to write.")] = Path("emoji.zip"),
) -> None:
    """Build the set of emoji, pictures and captions in two styles, from npm packages in MODULES.

    npm install emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 emojibase-data@17.0.0
    """
    from trilemma.output.atomic import replacing

    pictures = {style: found(modules, folder) for style, folder in PICTURES.items()}
    rows = metadata(modules, pictures)
    with replacing(out) as file, zipfile.ZipFile(file, "w") as archive:
        for row in rows:
            name = Path(row["file_name"]).stem
            content = on_white(pictures[row["style"]][name].read_bytes())
            archive.writestr(zipfile.ZipInfo(row["file_name"], WHEN), content)
        for name, text in {"metadata.jsonl": written(rows), "LICENSES.txt": LICENCES}.items():
            archive.writestr(zipfile.ZipInfo(name, WHEN), text, zipfile.ZIP_DEFLATED)
    typer.echo(f"{out}: {len(rows):,} emoji")


def found(modules: Path, folder: str) -> dict[str, Path]:
    """Returns the pictures of a style by their names, the code points in lower case without fe0f.

    Raises:
        DataError: where there are none.
    """
    from trilemma.errors import DataError

    files = {name_of(path.stem): path for path in sorted((modules / folder).glob("*.png"))}
    if not files:
        raise DataError(f"{modules} holds no {folder}; run npm install {PACKAGES} and give its node_modules")
    return files


def name_of(code_points: str) -> str:
    """Returns code points in lower case without fe0f: 0023-FE0F-20E3 is 0023-20e3."""
    return "-".join(point for point in code_points.lower().split("-") if point != "fe0f")


def metadata(modules: Path, pictures: Mapping[str, Mapping[str, Path]]) -> list[dict[str, Any]]:
    """Returns a row for each picture of an emoji that there is in every style, sorted by file name."""
    known = dict(named(modules))
    rows = [
        {
            "file_name": f"{style}/{name}.png",
            **{key: about[key] for key in ("text", "concept", "tags", "tone")},
            "style": style,
            **{key: about[key] for key in ("group", "subgroup")},
            "split": split(name, style, about["tone"]),
        }
        for style in PICTURES
        for name, about in known.items()
        if all(name in files for files in pictures.values())
    ]
    return sorted(rows, key=lambda row: row["file_name"])


def named(modules: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of every emoji and what it is called, those with tones of skin among them.

    Raises:
        DataError: for words that are missing or damaged.
    """
    from trilemma.errors import DataError

    try:
        emoji, messages = (
            json.loads((modules / WORDS / name).read_bytes()) for name in ("data.json", "messages.json")
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {modules / WORDS}: {error}; run npm install {PACKAGES}") from error
    group, subgroup = (
        {of["order"]: of["message"] for of in messages[key]} for key in ("groups", "subgroups")
    )
    for parent in emoji:
        for entry in (parent, *parent.get("skins", ())):
            yield (
                name_of(entry["hexcode"]),
                {
                    "text": entry["label"],
                    "concept": parent["label"],
                    "tags": parent.get("tags", []),
                    "tone": entry.get("tone"),
                    "group": group.get(entry.get("group")),
                    "subgroup": subgroup.get(entry.get("subgroup")),
                },
            )


def split(name: str, style: str, tone: Any) -> str:
    """Returns the split: of emoji with a tone test-combination for 5 %, of others test-style for 6 % in one style."""
    if tone is not None:
        return "test-combination" if uniform(f"combination {name}") < 0.05 else "train"
    apart = "noto" if uniform(f"which {name}") < 0.5 else "twemoji"
    return "test-style" if style == apart and uniform(f"style {name}") < 0.06 else "train"


def uniform(text: str) -> float:
    """Returns a number from 0 to 1 that a text decides: the first 8 digits of its sha256 over 2³²."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def written(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as lines of JSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def on_white(content: bytes) -> bytes:
    """Returns a picture composited on white, as PNG."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
    file = io.BytesIO()
    white.convert("RGB").save(file, "PNG", optimize=True)
    return file.getvalue()
