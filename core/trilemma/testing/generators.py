"""Checks that a call leaves alone the random generators of the whole process."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trilemma.machine.global_generators import seeded


def keeps_global_generators(call: Callable[[], Any]) -> str:
    """Asserts that a call draws from and seeds no global generator."""
    with seeded(17):
        before = _states()
        call()
        for name, state in _states().items():
            assert state == before[name], f"it draws from {name}'s global generator, or seeds it"
    return "torch, random and NumPy"


def _states() -> dict[str, Any]:
    return {
        "torch": torch.default_generator.get_state().tolist(),
        "random": random.getstate(),
        "NumPy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
    }
