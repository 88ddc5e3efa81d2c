"""The generators that belong to the whole process: torch's, Python's and NumPy's."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

_LOCK = threading.RLock()


@contextlib.contextmanager
def seeded(key: int, device: torch.device | None = None) -> Iterator[None]:
    """Runs a block in which every global generator starts from `key`, and puts their states back after it.

    The draws of the block (initial weights, dropout) depend on `key` alone, and the caller's generators are as they
    were. Blocks of several threads run one after the other. A thread that draws from a global generator outside of
    such a block shares it with the block that runs.

    Args:
        key: an integer in [0, 2⁶³).
        device: an accelerator whose generator is seeded, too.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        stack.callback(torch.default_generator.set_state, torch.default_generator.get_state())
        torch.default_generator.manual_seed(key)
        if device is not None and device.type != "cpu":
            module = torch.get_device_module(device)
            stack.callback(module.set_rng_state, module.get_rng_state(device), device)
            with module.device(device):
                module.manual_seed(key)
        stack.callback(random.setstate, random.getstate())
        random.seed(key)
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        np.random.seed(key % 2**32)  # noqa: NPY002
        yield
