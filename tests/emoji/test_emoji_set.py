"""The command that builds the emoji, on three small packages, and its rules on the whole set."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import trilemma
from trilemma.errors import DataError

PACKAGE = Path(__file__).parents[2] / "examples" / "trilemma-emoji" / "trilemma_emoji"


@pytest.fixture(scope="module")
def emoji_set():
    described = importlib.util.spec_from_file_location("emoji_set", PACKAGE / "emoji_set.py")
    made = importlib.util.module_from_spec(described)
    described.loader.exec_module(made)
    yield made
    sys.modules.pop("emoji_set", None)


@pytest.fixture
def modules(tmp_path, emoji_set):
    """Packages with a hand, with and without a tone, a sign, and an emoji of one style alone."""
    words = tmp_path / emoji_set.WORDS
    words.mkdir(parents=True)
    hand = {"label": "hand", "hexcode": "270B", "tags": ["five"], "group": 1, "subgroup": 4}
    skins = [
        {"label": "hand: light skin tone", "hexcode": "270B-1F3FB", "tone": 1, "group": 1, "subgroup": 4}
    ]
    sign = {"label": "keycap: #", "hexcode": "0023-FE0F-20E3", "group": 1, "subgroup": 4}
    alone = {"label": "alone", "hexcode": "1F000", "group": 1, "subgroup": 4}
    (words / "data.json").write_text(json.dumps([{**hand, "skins": skins}, sign, alone]))
    messages = {
        "groups": [{"order": 1, "message": "people"}],
        "subgroups": [{"order": 4, "message": "hands"}],
    }
    (words / "messages.json").write_text(json.dumps(messages))
    for style, folder in emoji_set.PICTURES.items():
        (tmp_path / folder).mkdir(parents=True)
        names = ["270b", "270b-1f3fb", "0023-fe0f-20e3"] + ["1f000"] * (style == "noto")
        for name in names:
            Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_it_writes_the_emoji_of_both_styles_on_white(emoji_set, modules, tmp_path):
    emoji_set.command(modules, tmp_path / "first.zip")
    emoji_set.command(modules, tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    data = trilemma.dataset("images", root=str(tmp_path / "first.zip"))
    assert data.names[:2] == ("noto/0023-20e3.png", "noto/270b-1f3fb.png")
    assert data.columns["style"].classes == ("noto", "twemoji")
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        with Image.open(io.BytesIO(archive.read("noto/270b.png"))) as picture:
            assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 127, 127))
        assert b"CC-BY 4.0" in archive.read("LICENSES.txt")
    assert len(rows) == 6
    assert rows[1] == {
        "file_name": "noto/270b-1f3fb.png",
        "text": "hand: light skin tone",
        "concept": "hand",
        "tags": ["five"],
        "tone": 1,
        "style": "noto",
        "group": "people",
        "subgroup": "hands",
        "split": emoji_set.split("270b-1f3fb", "noto", 1),
    }


@pytest.mark.parametrize("missing", ["PICTURES", "WORDS"])
def test_a_package_that_is_missing_is_named(emoji_set, modules, tmp_path, missing, one_line):
    place = emoji_set.WORDS if missing == "WORDS" else emoji_set.PICTURES["twemoji"]
    (modules / place).rename(modules / "elsewhere")
    with pytest.raises(DataError, match=r"npm install emoji-datasource-google@16\.0\.0") as caught:
        emoji_set.command(modules, tmp_path / "out.zip")
    one_line(caught.value)
    assert not (tmp_path / "out.zip").exists()


def test_its_splits_and_its_writing_are_those_of_the_set(emoji_set, data_root):
    if not (data_root / "emoji.zip").exists():
        pytest.skip("there is no emoji.zip among the data")
    with zipfile.ZipFile(data_root / "emoji.zip") as archive:
        content = archive.read("metadata.jsonl")
    rows = [json.loads(line) for line in content.splitlines()]
    assert emoji_set.written(rows).encode() == content
    assert rows == sorted(rows, key=lambda row: row["file_name"])
    for row in rows:
        name = Path(row["file_name"]).stem
        assert emoji_set.split(name, row["style"], row["tone"]) == row["split"]
