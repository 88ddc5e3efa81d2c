"""Samples and a provenance to write."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def provenance_record() -> dict[str, Any]:
    return {
        "model": {"name": "tiny ü", "sha256": "ab"},
        "sampler": "ddim",
        "guidance": None,
        "process": "vp",
        "steps": 3,
        "cond": {"class": [1, 2]},
        "seed": 4,
        "noise": "KeyedNoise",
        "dtype": "float32",
        "deterministic": False,
        "seconds": 1.5,
        "n": 2,
    }


@pytest.fixture
def ramp():
    """Makes samples [n, channels, 4, 4] that rise from −1 to 1."""

    def made(n: int, channels: int = 1) -> Tensor:
        return torch.linspace(-1, 1, n * channels * 16).view(n, channels, 4, 4)

    return made


@pytest.fixture
def full_disk(monkeypatch):
    """From now on the disk refuses to keep what is written."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)
