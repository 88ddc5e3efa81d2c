"""A small, untrained but not silent, model directory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trilemma.model_directory import build_denoiser, save_model

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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    network = build_denoiser(CARD)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }
    save_model(path, CARD, state)
    return path
