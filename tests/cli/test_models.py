"""`trilemma models`: what is listed of every kind, without torch, and what is said of a damaged one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.conditional_gaussian import ConditionalGaussian
from support.linear_codes import LinearCodes
from trilemma.cli.app import main
from trilemma.models.building import build
from trilemma.models.card import save_model
from trilemma.models.places import model_path
from trilemma.registry import ModelSpec, PluginRecord, catalog, manager
from trilemma.registry.catalog import Catalog
from trilemma.testing import GaussianDenoiser

BUNDLED = {
    "mnist": "denoiser",
    "vdm-mnist": "denoiser",
    "cld-mnist": "denoiser",
    "mnist-8": "denoiser",
    "mnist-4": "denoiser",
    "mnist-1": "denoiser",
    "ddgan-mnist": "denoiser",
    "recovery-mnist": "denoiser",
    "mnist-features": "features",
    "image-features": "features",
    "mnist-classifier": "classifier",
}


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert main(["models", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_bundled_model_is_listed_with_its_kind_its_size_and_its_licence(capsys):
    found = {entry["name"]: entry for entry in listed(capsys)}
    assert {name: entry["kind"] for name, entry in found.items()} == BUNDLED
    for name, entry in found.items():
        weights = model_path(name) / "weights.safetensors"
        assert entry["bytes"] == weights.stat().st_size
        assert entry["licence"] == "Apache-2.0"
        assert entry["error"] is None
    assert found["mnist"]["parameters"] == 1_633_972
    assert found["mnist"]["shape"] == [1, 28, 28]
    assert found["mnist"]["conditions"] == [{"name": "class", "kind": "class", "size": 10}]
    assert found["image-features"]["conditions"] == []


def test_the_table_has_a_line_a_model(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(BUNDLED)
    (line,) = [line for line in lines if line.startswith("mnist ")]
    assert "1,633,972" in line
    assert "3.3 MB" in line
    assert "class (10 classes)" in line


def test_a_kind_is_chosen(capsys):
    assert {entry["name"] for entry in listed(capsys, "--kind", "features")} == {
        "mnist-features",
        "image-features",
    }
    assert main(["models", "--kind", "feature"]) == 2
    assert "did you mean 'features'" in capsys.readouterr().err


def test_a_card_is_shown(capsys):
    assert main(["models", "mnist-classifier"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("classifier mnist-classifier\n")
    for text in (
        "vp:schedule=cosine,T=1000",
        "noisy-digit-network",
        "200,138",
        "Apache-2.0",
        "test_accuracy.t=0.5",
    ):
        assert text in said
    assert main(["models", "nowhere"]) == 3
    assert "unknown model 'nowhere'" in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path, register) -> Path:
    """A latent model and a cascade that ends with another."""
    register("autoencoder", "test-linear", LinearCodes)
    register("denoiser", "test-gaussian", GaussianDenoiser)
    register("denoiser", "test-conditional", ConditionalGaussian)
    shared = {"process": {"spec": "vp-continuous"}, "data": {"shape": [1, 2, 2]}}
    autoencoder = {
        "model": {"name": "ae", "kind": "autoencoder"},
        "autoencoder": {"spec": "test-linear"},
        "data": {"shape": [1, 2, 2]},
    }
    save_model(tmp_path / "ae", autoencoder, build(autoencoder, seed=0).state_dict())
    for name, spec, side in (("latent", "test-gaussian", 2), ("high", "test-conditional", 4)):
        card = {
            **shared,
            "model": {"name": name},
            "denoiser": {"spec": spec, "parameterization": "v"},
            "data": {"shape": [1, side, side]},
        }
        if name == "latent":
            card["latent"] = {"autoencoder": "../ae"}
        save_model(tmp_path / name, card, {})
    stages = [{"model": "../latent"}, {"model": "../high", "image": "low"}]
    save_model(tmp_path / "both", {"model": {"name": "both", "kind": "cascade"}, "stage": stages}, {})
    return tmp_path


def test_models_that_name_others_count_their_weights(folders, capsys):
    alone = listed(capsys, str(folders / "ae"))
    latent = listed(capsys, str(folders / "latent"))
    both = listed(capsys, str(folders / "both"))
    assert alone["parameters"] == 2 + 2 + 8 + 4
    assert latent["parameters"] == both["parameters"] == alone["parameters"]
    assert latent["bytes"] > alone["bytes"]
    assert latent["autoencoder"] == "../ae"
    assert both["stages"] == ["../latent", "../high"]
    assert both["shape"] == [1, 4, 4]
    assert main(["models", str(folders / "both")]) == 0
    assert "stage 2" in capsys.readouterr().out


def test_a_cascade_of_itself_is_refused(folders, capsys):
    card = folders / "both" / "model.toml"
    card.write_text(card.read_text().replace('model = "../latent"', 'model = "."'))
    assert main(["models", str(folders / "both")]) == 1
    error = capsys.readouterr().err
    assert "stage.model names a cascade" in error
    assert main(["sample", str(folders / "both")]) == 1
    assert capsys.readouterr().err == error


def test_a_damaged_model_is_listed_with_the_reason(tmp_path, monkeypatch, capsys):
    package = tmp_path / "broken_models"
    shutil.copytree(model_path("mnist-features"), package / "damaged")
    (package / "__init__.py").touch()
    (package / "damaged" / "weights.safetensors").write_bytes(b"short")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = ModelSpec("damaged", "broken_models:damaged", "a damaged one")
    record = PluginRecord("broken", "1.0", "broken", "broken_models", components=(spec,))
    monkeypatch.setattr(manager, "_catalog", Catalog([*catalog().records, record]))
    (entry,) = [entry for entry in listed(capsys) if entry["name"] == "damaged"]
    assert "is no safetensors file (it has no header)" in entry["error"]
    assert main(["models"]) == 0
    assert "it has no header" in capsys.readouterr().out


def test_no_torch_is_needed(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from trilemma.cli.app import main; sys.exit(main(sys.argv[1:]))"
    for arguments in (["models"], ["models", "--json"], ["models", "mnist"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "Apache-2.0" in done.stdout
