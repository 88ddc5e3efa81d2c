"""`trilemma new-recipe` and `trilemma train` on a folder or zip of images."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.cli.app import main
from trilemma.evaluate.splits import HELD_OUT_RULE
from trilemma.models.card import read_card
from trilemma.train.checkpoint import list_checkpoints
from trilemma.train.recipe import read_recipe

FAILURE, USAGE = 1, 2
QUICK = ["--minutes", "0.001", "--set", "steps=2", "--set", "samples.every=0", "--set", "tensorboard=false"]


@pytest.fixture
def photos(tmp_path, here) -> Path:
    """A folder of 12 small colour pictures, beside the working directory."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for k in range(12):
        pixels = chance.integers(0, 256, (8, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.jpg")
    return folder


def in_classes(photos: Path) -> None:
    for k, path in enumerate(sorted(photos.iterdir())):
        (photos / f"class {k % 2}").mkdir(exist_ok=True)
        path.rename(photos / f"class {k % 2}" / path.name)


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    said, error = capsys.readouterr()
    return code, said, error


@pytest.mark.parametrize("layout", ["flat", "classes", "zip"])
def test_four_commands_lead_to_pictures(photos, capsys, layout):
    """new-recipe, train, train again, sample: each says something and leaves what it says."""
    source = photos
    if layout != "flat":
        in_classes(photos)
    if layout == "zip":
        source = photos.with_suffix(".zip")
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(photos.rglob("*.jpg")):
                archive.write(path, path.relative_to(photos))
        shutil.rmtree(photos)
    code, said, _ = run(capsys, "new-recipe", source, "--minutes", "0.001", "--out", "recipe.toml")
    assert code == 0
    classes = "no classes" if layout == "flat" else "2 classes"
    assert f"recipe.toml: 12 images, colour, {classes}; 20 steps at 8×8 take about" in said
    assert "next: trilemma train recipe.toml" in said
    short = [
        *("--set", "steps=2"),
        *("--set", "samples.every=1"),
        *("--set", "samples.steps=1"),
        "--no-progress",
    ]
    for _ in range(2):
        code, said, error = run(capsys, "train", "recipe.toml", *short)
        assert code == 0, error
        assert said.startswith("runs/my-photos/model")
    cond = [] if layout == "flat" else ["--cond", "class=['class 0','class 1']"]
    drawn = ["sample", "runs/my-photos/model", "-n", "4", "--steps", "2", *cond, "--out", "x.png", "-q"]
    code, _, error = run(capsys, *drawn)
    assert code == 0, error
    assert Path("x.png").is_file()


def test_a_folder_is_trained_on_in_one_step_and_goes_on(photos, capsys):
    code, said, error = run(capsys, "train", photos, *QUICK, "--no-progress")
    assert code == 0, error
    recipe = Path("runs/my-photos/recipe.toml")
    text = recipe.read_text()
    assert "12 images, colour, no classes" in error
    assert said.startswith("runs/my-photos/model: 2 steps, loss")
    steps = [path.name for path in list_checkpoints(Path("runs/my-photos/checkpoints"))]
    code, said, error = run(capsys, "train", photos, *QUICK, "--no-progress")
    assert (code, recipe.read_text()) == (0, text)
    assert "goes on by runs/my-photos/recipe.toml" in error
    assert [path.name for path in list_checkpoints(Path("runs/my-photos/checkpoints"))] == steps
    code, said, _ = run(capsys, "train", recipe, *QUICK[2:], "--no-progress", "--json")
    assert (code, json.loads(said)["steps"]) == (0, 2)


def test_it_begins_with_a_model(photos, capsys):
    assert run(capsys, "train", photos, *QUICK, "--no-progress")[0] == 0
    again = [photos, "--from", "runs/my-photos/model", "--out", "runs/finer", *QUICK, "--no-progress"]
    for _ in range(2):
        code, _, error = run(capsys, "train", *again)
        assert code == 0, error
    assert read_recipe("runs/finer/recipe.toml").start == str(Path("runs/my-photos/model").absolute())
    code, _, error = run(
        capsys, "train", "runs/my-photos/recipe.toml", *QUICK[2:], "--from", "mnist", "--out", "x"
    )
    assert code == USAGE
    assert "recipe: start: model mnist was trained on 10 classes" in error
    assert not Path("x").exists()


def test_the_unreadable_are_listed_and_nothing_is_written(photos, capsys):
    for k in (1, 3, 5, 7, 9):
        (photos / f"{k}.jpg").write_bytes(b"\xff\xd8 no more")
    code, said, error = run(capsys, "new-recipe", photos)
    assert code == FAILURE
    assert [line.partition(":")[0] for line in said.splitlines()] == [f"{k}.jpg" for k in (1, 3, 5, 7, 9)]
    assert error.startswith("error: cannot read 5 of 12 images: 1.jpg")
    code, said, error = run(capsys, "train", photos, *QUICK)
    assert (code, said) == (FAILURE, "")
    assert error.startswith("error: cannot read 5 of 12 images")
    assert list(Path().iterdir()) == []


def test_a_recipe_that_is_there_stays_unless_it_is_forced(photos, capsys, refused):
    Path("recipe.toml").write_text("mine")
    refused(FAILURE, "recipe.toml exists; choose another --out, or give --force", "new-recipe", photos)
    assert run(capsys, "new-recipe", photos, "--minutes", "0.001", "--force")[0] == 0
    assert "12 images" in Path("recipe.toml").read_text()


def test_a_disk_that_refuses_leaves_no_half_a_recipe(photos, refused, monkeypatch):
    import os

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(FAILURE, "No space left on device", "new-recipe", photos, "--minutes", "0.001", "--out", "r.toml")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("new-recipe", "nowhere"), FAILURE, "no nowhere in"),
        (("new-recipe", "{photos}", "--minutes", "0"), USAGE, "minutes=0 is no time"),
        (("new-recipe", "{photos}", "--size", "37"), USAGE, "size=37 has no divisor"),
        (("new-recipe", "{photos}", "--size", "-1"), USAGE, "size"),
        (("new-recipe", "{photos}", "--from", "mnst"), 3, "did you mean 'mnist'"),
        (
            ("new-recipe", "{photos}", "--from", "mnist"),
            USAGE,
            "has 10 classes and the images lie in no folders",
        ),
        (("train", "{photos}", "--minutes", "nan"), USAGE, "is no time"),
        (("train", "{recipe}", "--minutes", "5"), USAGE, "--minutes and --size are for a folder or zip"),
        (("train", "{photos}/0.jpg"), USAGE, "is no valid TOML"),
    ],
)
def test_what_cannot_be_asked_is_refused(photos, recipe, refused, arguments, code, message):
    refused(code, message, *(word.format(photos=photos, recipe=recipe) for word in arguments))


def test_a_mixed_folder_is_refused(photos, refused):
    (photos / "a").mkdir()
    shutil.copy(photos / "0.jpg", photos / "a")
    refused(FAILURE, "lies in a folder", "new-recipe", photos)
    refused(FAILURE, "lies in a folder", "train", photos)


def test_the_folder_of_another_run_is_refused(photos, capsys, refused):
    assert run(capsys, "train", photos, *QUICK, "--no-progress")[0] == 0
    other = photos.with_name("other")
    shutil.copytree(photos, other)
    refused(USAGE, "is a recipe for", "train", other, "--out", "runs/my-photos")
    Path("runs/my-photos/recipe.toml").unlink()
    refused(USAGE, "holds a run by another recipe", "train", photos)


def test_one_of_several_processes_writes_no_recipe(photos, refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(USAGE, "first run trilemma new-recipe", "train", photos)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("reference", [None, "train"])
def test_what_was_held_out_is_what_a_model_is_measured_against(photos, capsys, reference):
    """Of 12 images, each mirrored, three are held out and compared with; only asked for are the others."""
    part = ["--set", "validation.fraction=0.25", "--set", "validation.every=2", "--no-progress"]
    code, said, error = run(capsys, "train", photos, *QUICK, *part, "--out", "run")
    assert code == 0, error
    assert "flip" in read_card(Path("run/model"))["data"]["dataset"]
    asked = [] if reference is None else ["--reference", reference]
    words = ["eval", "run/model", "-n", "4", "--steps", "1", "--metric", "frechet", "--no-progress", "--json"]
    code, said, error = run(capsys, *words, *asked)
    assert code == 0, error
    found = json.loads(said)
    assert found["splits"] == {"rule": HELD_OUT_RULE, "trained_on": ["train"]}
    count = {"test": 3, "train": 9}
    split = reference or "test"
    assert found["reference"] == {"split": split, "images": {"frechet": count[split]}}
    assert found["baseline"]["images"] == 12 - count[split]
    code, said, _ = run(capsys, *words[:-1], *asked)
    assert (
        "held out of the model's training are test, the rest train; the model has seen train alone in training"
        in (" ".join(said.split()))
    )


def test_a_model_that_began_with_another_knows_what_that_held_out(photos, capsys):
    part = ["--set", "validation.fraction=0.25", "--no-progress"]
    for name, words in (
        ("first", part),
        ("alike", [*part, "--from", "first/model"]),
        ("other", [*part, "--from", "first/model", "--set", "seed=5"]),
    ):
        code, _, error = run(capsys, "train", photos, *QUICK, *words, "--out", name)
        assert code == 0, error
    made = {name: read_card(Path(name, "model"))["provenance"] for name in ("first", "alike", "other")}
    assert "start_held_out" not in made["first"]
    assert made["alike"]["start_held_out"] is True
    assert made["other"]["start_held_out"] is False
