"""`trilemma eval` of a model of somebody's photos, whose card says nothing but its data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from trilemma.cli.app import main
from trilemma.evaluate.splits import RULE
from trilemma.models.card import build_denoiser, save_model

METRICS = {"frechet", "precision", "recall", "class-agreement"}


@pytest.fixture(scope="module")
def photo_model(tmp_path_factory) -> Path:
    """A model directory beside 40 colour pictures of 12×10 in one class."""
    home = tmp_path_factory.mktemp("photos")
    (home / "photos" / "holidays").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        pixels = torch.randint(0, 256, (12, 10, 3), generator=generator).byte().numpy()
        Image.fromarray(pixels).save(home / "photos" / "holidays" / f"{number}.png")
    card = {
        "model": {"name": "photos"},
        "process": {"spec": "vp:schedule=cosine,T=50"},
        "denoiser": {
            "spec": "unet",
            "parameterization": "v",
            "options": {"channels": [8], "blocks": 1, "groups": 4},
        },
        "data": {"shape": [3, 8, 8], "dataset": f"images:root='{home}/photos',size=8"},
    }
    save_model(home / "model", card, build_denoiser(card, seed=0).state_dict())
    return home / "model"


def evaluated(capsys, *arguments: object) -> tuple[str, str]:
    assert main(["eval", *map(str, arguments), "--steps", "1", "-n", "8", "--no-progress"]) == 0
    said = capsys.readouterr()
    return said.out, said.err


def test_all_that_is_needed_is_in_the_card(capsys, photo_model: Path) -> None:
    record = json.loads(evaluated(capsys, photo_model, "--json")[0])
    assert set(record["metrics"]) == METRICS
    assert record["metrics"]["frechet"] > 0
    assert record["metrics"]["class-agreement"] is None
    assert record["features"].startswith("image-features sha256:")
    assert record["splits"] == {"rule": RULE, "trained_on": ["train", "test"]}
    assert record["reference"] == {
        "split": "train",
        "images": {"frechet": 36, "precision": 36, "recall": 36, "class-agreement": 0},
    }
    assert (record["baseline"]["split"], record["baseline"]["images"]) == ("test", 4)


def test_the_table_says_on_what_features_and_what_was_seen(capsys, photo_model: Path) -> None:
    said = " ".join(evaluated(capsys, photo_model)[0].split())
    assert "features: image-features sha256:" in said
    assert f"{RULE}, the rest train; the model has seen both in training" in said


def test_an_untrained_network_has_seen_nothing(capsys, photo_model: Path) -> None:
    record = json.loads(evaluated(capsys, photo_model, "--untrained", "--no-baseline", "--json")[0])
    assert record["splits"]["trained_on"] == []
    said, _ = evaluated(capsys, photo_model, "--untrained", "--no-baseline")
    assert "the model has seen neither in training" in " ".join(said.split())


def test_too_few_images_for_a_baseline_lose_no_figures(capsys, photo_model: Path) -> None:
    photos = photo_model.parent / "few" / "holidays"
    photos.mkdir(parents=True)
    for number in range(12):
        (photos / f"{number}.png").write_bytes(
            (photo_model.parent / "photos" / "holidays" / f"{number}.png").read_bytes()
        )
    given = f"images:root='{photos.parent}',size=8"
    said, complaints = evaluated(capsys, photo_model, "--dataset", given, "--json")
    record = json.loads(said)
    assert record["baseline"] is None
    assert "no figures of real images" in complaints
    assert record["splits"]["trained_on"] is None
