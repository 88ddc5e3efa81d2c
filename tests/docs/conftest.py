"""The parts of the documentation's tests, and stand-ins for MNIST and for a reader's photographs."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

CLASSES, EACH = 10, {"train": 30, "t10k": 10}


def take_photos(folder: Path) -> None:
    """Writes twelve small pictures, as a reader has them who trains on their own."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(chance.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(folder / f"{k}.jpg")


@pytest.fixture(scope="session")
def mnist_stand_in(tmp_path_factory) -> Path:
    """A data folder whose `mnist` is as small as the pages' commands need: a blurred bar a class, in noise."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "mnist"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for stem, each in EACH.items():
        labels = torch.arange(CLASSES).repeat(each)
        pixels = torch.randint(0, 60, (len(labels), 28, 28), generator=generator, dtype=torch.uint8)
        for image, label in zip(pixels, labels.tolist(), strict=True):
            image[4:24, 2 * label + 2 : 2 * label + 6] = 220
        images = struct.pack(">4I", 0x803, len(labels), 28, 28) + pixels.numpy().tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, len(labels)) + bytes(labels.tolist())
        )
    return root
