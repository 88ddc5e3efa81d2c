"""A run small enough to be repeated many times."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch

RECIPE = """
name = "tiny"
steps = 24
batch_size = 8
checkpoint_every = 4
log_every = 4
tensorboard = false
dataset = {{ spec = "mnist:root='{root}'" }}
process = {{ spec = "vp:T=50" }}
objective = {{ spec = "simple:drop=0.2" }}

[denoiser]
parameterization = "v"
options = {{ channels = [8], blocks = 1, classes = 10, patch = 4, groups = 4, dropout = 0.2 }}

[optimizer]
lr = 0.01
warmup = 4
"""


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory) -> Path:
    """A folder of 40 made-up training images in the IDX format."""
    root = tmp_path_factory.mktemp("mnist")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.arange(40, dtype=torch.uint8) % 10
    images = struct.pack(">IIII", 0x803, 40, 28, 28) + pixels.numpy().tobytes()
    (root / "train-images-idx3-ubyte").write_bytes(images)
    with gzip.open(root / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">II", 0x801, 40) + labels.numpy().tobytes())
    return root


@pytest.fixture
def tiny_recipe(tmp_path, tiny_mnist) -> Path:
    """A recipe file for that folder."""
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(root=tiny_mnist))
    return path
