"""A small model directory, untrained but not silent, a small data set, and a command line that must refuse."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma.cli.app import main
from trilemma.models.card import build_denoiser, save_model

CARD = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:schedule=cosine,T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4},
    },
    "data": {"shape": [1, 8, 8]},
}

RECIPE = """
name = "tiny"
steps = 4
batch_size = 8
checkpoint_every = 2
log_every = 2
tensorboard = false
dataset = { spec = "mnist:root='DATA'" }
process = { spec = "vp:schedule=cosine,T=50" }
objective = { spec = "simple" }

[denoiser]
options = { channels = [8], blocks = 1, classes = 10, patch = 4, groups = 4 }
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return saved(CARD, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def digit_model(tmp_path) -> Path:
    """A model whose samples are as large as the digits and their feature network."""
    evaluation = {"dataset": "mnist", "features": "mnist-features"}
    return saved({**CARD, "data": {"shape": [1, 28, 28]}, "evaluation": evaluation}, tmp_path / "digits")


def saved(card: dict[str, Any], path: Path) -> Path:
    network = build_denoiser(card, seed=0)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }
    save_model(path, card, state)
    return path


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory) -> Path:
    """A folder of 40 made-up images a split, in the IDX format."""
    root = tmp_path_factory.mktemp("mnist")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "t10k"):
        pixels = torch.randint(0, 256, (40, 28, 28), generator=generator, dtype=torch.uint8)
        images = struct.pack(">4I", 0x803, 40, 28, 28) + pixels.numpy().tobytes()
        (root / f"{split}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2I", 0x801, 40) + bytes(index % 3 for index in range(40))
        (root / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return root


@pytest.fixture
def recipe(tiny_mnist, tmp_path) -> Path:
    """A recipe that trains on it in a moment."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("DATA", str(tiny_mnist)))
    return path


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the model to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The empty working directory, where nothing may be left."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes | None]]:
    """Every file and folder in a folder, hidden ones too, with its content."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(capsys, here, contents) -> Callable[..., str]:
    """Runs the command line and checks that it refuses: exit code, one line that ends in what to do, no file."""

    def check(code: int, message: str, *arguments: object) -> str:
        before = contents(here)
        found = main([str(argument) for argument in arguments])
        said, error = capsys.readouterr()
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert "Traceback" not in error
        assert "TRILEMMA_TRACEBACK" not in error  # which is for what nobody foresaw
        assert message in error
        assert ";" in error
        assert (found, said) == (code, "")
        assert contents(here) == before
        return error

    return check
