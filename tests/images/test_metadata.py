"""Metadata of images: columns by their rule, splits, several files, and all that does not fit, at once."""

from __future__ import annotations

import csv
import io
import json
import os
import string
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import trilemma
from trilemma.errors import DataError, TrilemmaError, UsageError
from trilemma.testing import run_checks
from trilemma_plugins.images import metadata as metadata_module
from trilemma_plugins.images.unreadable import Unreadable


def png(level: int, height: int = 4, width: int = 4) -> bytes:
    """A picture that is darker to the right, so that its mirror image is another."""
    buffer = io.BytesIO()
    ramp = np.linspace(level, level // 2, width).round().astype(np.uint8)
    Image.fromarray(np.repeat(ramp[None, :, None], height, 0).repeat(3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


ROWS: list[dict[str, Any]] = [
    {"file_name": "a.png", "text": "a cat", "style": "ink", "level": 1, "note": "n1", "split": "train"},
    {"file_name": "in/b.png", "text": None, "style": "oil", "level": 2.5, "note": "n2", "split": "train"},
    {"file_name": "c.png", "text": "a dog", "style": None, "level": None, "note": "n3", "split": "test-hard"},
    {"file_name": "./d.png", "text": "a cat", "style": "ink", "level": -1, "note": "n4", "split": "train"},
    {"file_name": "f.png", "text": "a hen", "style": "oil", "level": 0, "note": "n5", "split": "train"},
]
IMAGES = {"a.png": png(10), "in/b.png": png(20), "c.png": png(30), "d.png": png(40), "f.png": png(50)}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def images(root: Path | str, **options: object):
    return trilemma.dataset("images", root=str(root), **options)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_columns_become_conditions_by_their_kind(place, name):
    write = as_csv if name.endswith("csv") else jsonl
    data = images(place(IMAGES | {name: write(ROWS)}))
    assert data.names == ("a.png", "d.png", "f.png", "in/b.png")
    kinds = {key: column.kind for key, column in data.columns.items()}
    assert kinds == {"text": "text", "style": "class", "level": "scalar", "note": "text"}
    x0, values = data.batch(torch.tensor([3, 0]))
    assert values["text"] == [None, "a cat"]
    assert values["level"].tolist() == [2.5, 1.0]
    assert values["style"].tolist() == [1, 0]
    assert data.columns["style"].classes == ("ink", "oil")
    # The range is that of all splits.
    assert (data.columns["level"].low, data.columns["level"].high) == (-1.0, 2.5)
    assert data.classes == ()
    assert ((x0[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [20, 10]


def test_it_passes_the_checks(place):
    rows = [row | {"text": [f"{k}", "b"], "next_file_name": "a.png"} for k, row in enumerate(ROWS)]
    root = place(IMAGES | {"metadata.jsonl": jsonl(rows)})
    found = run_checks("dataset", f"images:root='{root}',flip=true,size=3")
    assert [record for record in found if record.failed] == []
    assert [record.name for record in found if record.status == "skipped"] == []


def test_the_column_of_splits_divides_the_images(place, one_line):
    root = place(IMAGES | {"metadata.jsonl": jsonl(ROWS)})
    assert images(root, split="test").names == images(root, split="test-hard").names == ("c.png",)
    hard = images(root, split="test")
    assert hard.columns["text"].at(torch.tensor([0])) == ["a dog"]
    assert hard.columns["style"].missing.tolist() == hard.columns["level"].missing.tolist() == [True]
    # A part of the data has the classes of the whole.
    assert hard.columns["style"].classes == ("ink", "oil")
    with pytest.raises(UsageError, match="no split=val; its splits are test-hard, train") as caught:
        images(root, split="val")
    one_line(caught.value)


def test_columns_are_chosen_by_name(place, one_line):
    rows = [
        row | {"words": [f"one {k}", "two"][: 1 + k % 2], "mark": k % 2, "odd": [k]}
        for k, row in enumerate(ROWS)
    ]
    root = place(IMAGES | {"metadata.jsonl": jsonl(rows)})
    data = images(root, label="mark", text="words")
    assert data.classes == ("0", "1")
    # Two captions at most: the second views of all images come after the first ones.
    assert (len(data), data.copies) == (8, 2)
    first = ["one 0", "one 3", "one 4", "one 1"]
    assert data.columns["text"].values == [*first, "one 0", "two", "one 4", "two"]
    assert data.labels.tolist() == [0, 1, 0, 1] * 2
    assert torch.equal(data.read(torch.arange(4)), data.read(torch.arange(4, 8)))
    assert "odd" not in data.columns
    for options, message in (
        ({"label": "odd"}, "column 'odd' of .* holds something else than strings"),
        ({"label": "marc"}, "no column label='marc'; did you mean mark"),
        ({"text": "level"}, "column 'level' of .* holds something else than texts"),
        ({"label": "style"}, r"in/b.png|c\.png in .* has no class"),
    ):
        with pytest.raises(TrilemmaError, match=message) as caught:
            images(root, **options)
        one_line(caught.value)


def test_other_images_go_with_theirs_through_crops_and_flips(place, tmp_path):
    rows = [
        {"file_name": "a.png", "before_file_name": "in/b.png"},
        {"file_name": "c.png", "before_file_name": "d.png"},
    ]
    (tmp_path / "twin").mkdir()
    for name, of in (("a.png", "in/b.png"), ("c.png", "d.png")):
        (tmp_path / "twin" / name).write_bytes(IMAGES[of])
    root = place(
        {name: blob for name, blob in IMAGES.items() if name != "f.png"} | {"metadata.jsonl": jsonl(rows)}
    )
    data = images(root, size=4, flip=True, crops=5)
    every = torch.arange(len(data))
    assert [column.kind for column in data.columns.values()] == ["image"]
    before = data.batch(every)[1]["before"]
    twin = images(tmp_path / "twin", size=4, flip=True, crops=5)
    assert torch.equal(before, twin.read(every))
    assert not torch.equal(before[:10], before[10:])
    assert torch.equal(before[:10], before[10:].flip(-1))


def test_flips_leave_classes_numbers_and_texts_alone(place):
    root = place(IMAGES | {"metadata.jsonl": jsonl(ROWS)})
    plain, flipped = images(root), images(root, flip=True)
    assert len(flipped) == 2 * len(plain)
    for name, column in plain.columns.items():
        every = torch.arange(len(plain))
        for views in (every, every + len(plain)):
            first, second = column.at(every), flipped.columns[name].at(views)
            assert (
                first == second
                if isinstance(first, list)
                else torch.equal(first.nan_to_num(9), second.nan_to_num(9))
            )


def test_each_folder_may_have_its_own(place):
    files = {f"{folder}/{name}": blob for folder in "xy" for name, blob in IMAGES.items()}
    rows = [row | {"split": "train"} for row in ROWS]
    files |= {"x/metadata.jsonl": jsonl(rows), "y/metadata.csv": as_csv(rows)}
    data = images(place(files))
    assert len(data) == 10
    values = [column.at(torch.arange(10)) for column in data.columns.values()]
    assert all(
        value[:5] == value[5:]
        if isinstance(value, list)
        else torch.equal(value[:5].nan_to_num(9), value[5:].nan_to_num(9))
        for value in values
    )


def test_splits_may_be_folders_with_metadata(tmp_path, one_line):
    few = dict(list(IMAGES.items())[:4])
    for split, styles in (("train", ["ink", "oil"] * 2), ("test", ["oil", "oil", "oil", "ink"])):
        for name, blob in few.items():
            (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / split / name).write_bytes(blob)
        rows = [{"file_name": name, "style": style} for name, style in zip(few, styles, strict=True)]
        (tmp_path / split / "metadata.jsonl").write_bytes(jsonl(rows))
    training, test = (images(f"{tmp_path}/{{split}}", split=s, label="style") for s in ("train", "test"))
    assert training.classes == test.classes == ("ink", "oil")
    assert test.labels.tolist() == [1, 1, 0, 1]
    for changed, message in (
        ("gum", "of a class that is none of the training split's"),
        (None, "no column style"),
    ):
        rows = [{"file_name": name} | ({"style": changed} if changed else {}) for name in few]
        (tmp_path / "test" / "metadata.jsonl").write_bytes(jsonl(rows))
        with pytest.raises(DataError, match=message) as caught:
            images(f"{tmp_path}/{{split}}", split="test", label="style")
        one_line(caught.value)


FIRST = ROWS[0]
BAD_LINES = {
    "no JSON": (b'{"file_name": "a.png"', "is no JSON"),
    "no object": (b'["a.png"]', "is no JSON object"),
    "deep": (b"[" * 100_000, "is no JSON"),
    "NaN": (b'{"file_name": "a.png", "level": NaN}', "NaN is no number"),
    "half a character": (rb'{"file_name": "a.png", "text": "\ud800"}', "is no JSON"),
    "long number": (b'{"file_name": "a.png", "level": ' + b"9" * 10_000 + b"}", "is no JSON"),
    "no file": (b'{"text": "x"}', "its file_name is no path"),
    "outside": (b'{"file_name": "../a.png"}', "its file_name is no path"),
    "absolute": (b'{"file_name": "/etc/passwd"}', "its file_name is no path"),
    "missing": (json.dumps(FIRST | {"file_name": "e.png"}).encode(), "no file 'e.png'"),
    "no image": (json.dumps(FIRST | {"file_name": "metadata.jsonl"}).encode(), "is no image"),
    "twice": (json.dumps(FIRST).encode(), "has a row in metadata.jsonl:1"),
    "a column short": (b'{"file_name": "a.png"}', "it has no 'text'|has a row"),
    "large": (json.dumps(FIRST | {"level": 1e300}).encode(), "has a row|past those of float32"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named(place, one_line, kind):
    line, message = BAD_LINES[kind]
    root = place(IMAGES | {"metadata.jsonl": jsonl(ROWS) + b"\n" + line})
    with pytest.raises(Unreadable, match=message) as caught:
        images(root)
    assert "metadata.jsonl:6" in one_line(caught.value)


def test_all_that_does_not_fit_is_listed_at_once(place, one_line):
    lines = [line for line, _ in BAD_LINES.values()]
    root = place(IMAGES | {"e.png": png(1), "metadata.jsonl": jsonl(ROWS[:3]) + b"\n" + b"\n".join(lines)})
    with pytest.raises(Unreadable) as caught:
        images(root)
    found = caught.value.reasons
    # The image that one line misses is there; two other images have no row.
    assert set(found) == {
        f"metadata.jsonl:{4 + k}" for k, kind in enumerate(BAD_LINES) if kind != "missing"
    } | {"d.png", "f.png"}
    assert found["d.png"] == "no row names it"
    said = one_line(caught.value)
    assert f"{len(found)} rows and images" in said
    assert len(said) < 300


def test_a_label_of_two_columns_has_a_class_for_each_combination(place):
    rows = [row | {"style": row["style"] or "oil", "dark": row["file_name"] == "f.png"} for row in ROWS]
    root = place(IMAGES | {"metadata.jsonl": jsonl(rows)})
    data = images(root, split="train", label=["style", "dark"])
    assert data.classes == ("ink, False", "oil, False", "oil, True")
    # a, d, f, and b.
    assert data.labels.tolist() == [0, 0, 2, 1]
    assert data.columns["style"].at(torch.arange(4)).tolist() == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="no column label='style, darc'"):
        images(root, label=["style", "darc"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"file_name,text\na.png,x,y\n", r"csv:2 \(it has 3 cells under 2 names\)"),
        (b"file_name,text\na.png\n", r"csv:2 \(it has 1 cells under 2 names\)"),
        (b"name,text\na.png,x\n", "no header of different names"),
        (b"file_name,text,text\na.png,x,y\n", "no header of different names"),
        (b'file_name,text\na.png,"x', "is no CSV"),
        (b"file_name,text\na.png," + b"x" * 200_000, "is no CSV"),
        (b"", "no header of different names"),
        (b"file_name,text\n", "no row names it"),
        (b"file_name\xff,text\n", "is not in UTF-8"),
    ],
)
def test_a_bad_table_is_named(place, one_line, text, message):
    with pytest.raises(DataError, match=message) as caught:
        images(place({"a.png": png(1), "metadata.csv": text}))
    one_line(caught.value)


def test_two_files_in_one_folder_are_refused(place, one_line):
    root = place(IMAGES | {"metadata.jsonl": jsonl(ROWS), "metadata.csv": as_csv(ROWS)})
    with pytest.raises(DataError, match=r"holds both metadata\.jsonl and metadata\.csv") as caught:
        images(root)
    one_line(caught.value)


def test_a_pipe_and_a_bomb_are_not_waited_for(tmp_path, one_line, monkeypatch):
    monkeypatch.setattr(metadata_module, "LIMIT", 1000)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(png(1))
    os.mkfifo(tmp_path / "set/metadata.jsonl")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png(1))
        archive.writestr("metadata.jsonl", b" " * 1001)
    for name, message in (("set", "it is a pipe"), ("bomb.zip", "1,001 bytes, at most 1,000 are read")):
        with pytest.raises(DataError, match=message) as caught:
            images(tmp_path / name)
        one_line(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"x\n", "at least 10,00[12] rows and images"),
        (b"[" + b"[]," * 400_000 + b"[]]\n", "more than 1,048,576 characters"),
        (b'{"file_name": "a.png"}\n', "at least|rows and images"),
    ],
)
def test_faults_without_end_are_not_collected(tmp_path, one_line, line, message):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "metadata.jsonl").write_bytes(line * (3_000_000 // len(line)))
    with pytest.raises(Unreadable, match=message) as caught:
        images(tmp_path)
    assert len(caught.value.reasons) <= 10_002
    one_line(caught.value)


def test_captions_without_end_are_refused(place, one_line):
    rows = [{"file_name": "a.png", "text": [f"{k}" for k in range(257)]}]
    with pytest.raises(DataError, match="257 texts") as caught:
        images(place({"a.png": png(1), "metadata.jsonl": jsonl(rows)}))
    one_line(caught.value)


def test_options_that_need_metadata_say_so(place, one_line):
    root = place({"a/1.png": png(1), "b/1.png": png(2)})
    with pytest.raises(UsageError, match="there are none, without metadata") as caught:
        images(root, label="style")
    one_line(caught.value)


def test_the_fingerprint_knows_the_metadata(tmp_path):
    for name, blob in IMAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(blob)
    prints = set()
    for change in ({}, {"text": "a cow"}, {"level": 2}, {"style": "oil"}, {"split": "test"}):
        (tmp_path / "metadata.jsonl").write_bytes(jsonl([FIRST | change, *ROWS[1:]]))
        prints.add(images(tmp_path).fingerprint())
    assert len(prints) == 5


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8)
VALUE = (
    st.none()
    | st.integers(-(10**20), 10**20)
    | st.floats(-1e30, 1e30)
    | st.booleans()
    | TEXT
    | st.lists(TEXT)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.dictionaries(
        st.text(string.ascii_letters, min_size=1, max_size=5),
        st.lists(VALUE, min_size=3, max_size=3),
        max_size=4,
    )
)
def test_any_values_are_read_as_written_or_refused(tmp_path, columns):
    """A column that is given holds the values that were written."""
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png(1))
    rows = [
        {"file_name": f"{name}.png"} | {key: v[k] for key, v in columns.items()}
        for k, name in enumerate("abc")
    ]
    (tmp_path / "metadata.jsonl").write_bytes(jsonl(rows))
    try:
        data = images(tmp_path)
    except TrilemmaError:
        # Its message is made one line by all errors of this kind.
        return
    for name, column in data.columns.items():
        values = columns[name]
        found = column.at(torch.arange(3))
        if column.kind == "scalar":
            expected = [None if value is None else pytest.approx(value, rel=1e-6) for value in values]
            assert [None if value != value else value for value in found.tolist()] == expected
        elif name not in ("text", "class"):
            names = getattr(column, "classes", None)
            read = [names[k] if k >= 0 else None for k in found.tolist()] if names else found
            assert read == [str(v).lower() if isinstance(v, bool) else v for v in values]


def test_emoji_are_such_a_set(data_root):
    if not (data_root / "emoji.zip").is_file():
        pytest.skip(f"no emoji.zip in {data_root}")
    spec = f"images:root='{data_root / 'emoji.zip'}',label=style,size=64"
    training = trilemma.dataset(spec)
    assert (len(training), training.shape, training.classes) == (7308, (3, 64, 64), ("noto", "twemoji"))
    parts = {name: trilemma.dataset(spec, split=name) for name in ("test", "test-style", "test-combination")}
    assert {name: len(part) for name, part in parts.items()} == {
        "test": 264,
        "test-style": 114,
        "test-combination": 150,
    }
    assert "raised hand: medium skin tone" in training.columns["text"].values
    kinds = {name: column.kind for name, column in training.columns.items()}
    assert kinds == {
        "class": "class",
        "text": "text",
        "concept": "text",
        "group": "class",
        "subgroup": "class",
    }
