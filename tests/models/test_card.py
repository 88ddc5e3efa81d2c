"""Model directories: the round trip, and every way in which one can be broken."""

import pytest
import torch

from trilemma.errors import ModelError
from trilemma.models.card import build_denoiser, load_model, read_card, save_model

CARD = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4},
    },
    "data": {"shape": [1, 8, 8], "range": [-1.0, 1.0], "classes": ["a", "b", 'ü"c']},
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    torch.manual_seed(0)
    net = build_denoiser(CARD, seed=0)
    with torch.no_grad():
        net.outlet.weight.normal_()
    save_model(path, CARD, net.state_dict())
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_model_comes_back_as_it_was(folder):
    torch.manual_seed(0)
    original = build_denoiser(CARD, seed=0)
    with torch.no_grad():
        original.outlet.weight.normal_()
    loaded = load_model(folder)
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded.card["data"]["classes"] == ["a", "b", 'ü"c']
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert load_model(folder, dtype=torch.bfloat16).outlet.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("damage", ["truncate", "flip", "sha"])
def test_damaged_weights_are_refused(folder, damage):
    weights = folder / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    if damage == "truncate":
        weights.write_bytes(blob[: len(blob) // 2])
    elif damage == "flip":
        blob[-5] ^= 1
        weights.write_bytes(blob)
    else:
        edit(folder / "model.toml", 'sha256 = "', 'sha256 = "0')
    with pytest.raises(ModelError, match="sha256"):
        load_model(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format 2"),
        ('name = "tiny"', 'name = "tiny"\nsumary = "x"', "model.summary"),
        ("[process]", "[proces]", "did you mean 'process'"),
        ("[model]", "[model", "no valid TOML"),
        ('spec = "vp:T=50"', "", "process.spec"),
        ("blocks = 1", "blocks = 2", "do not fit"),
    ],
)
def test_damaged_cards_are_refused(folder, old, new, message):
    edit(folder / "model.toml", old, new)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folder, tmp_path):
    with pytest.raises(ModelError, match="no model directory"):
        load_model(tmp_path / "none")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot read"):
        load_model(folder)


def test_a_failed_write_leaves_the_old_model(folder, monkeypatch):
    before = read_card(folder)
    import os

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save_model(folder, CARD, {"x": torch.zeros(3)})
    assert read_card(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(ModelError, match="no model directory"):
        save_model(tmp_path / "precious", CARD, {"x": torch.zeros(1)})
