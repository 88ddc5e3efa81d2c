"""Provenance: the record of how a set of samples was made. It can be written as JSON."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from trilemma import lookup
from trilemma.engine.graphs import Capture
from trilemma.engine.images import digest
from trilemma.engine.resolved import Resolved
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.weights import weights_digest
from trilemma.ops.choice import InForce
from trilemma.version import __version__


class Clock:
    """Seconds spent drawing, and the samples drawn in them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.samples = 0

    @contextmanager
    def running(self, samples: int) -> Iterator[None]:
        """Counts the time spent inside, and these samples once it ends well."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.samples += samples


def describe(
    resolved: Resolved,
    clock: Clock,
    nfe: int,
    backend: str | None,
    choice: InForce | None,
    capture: Capture | None,
) -> dict[str, Any]:
    """Returns the record of a request: specs, seed, NFE a sample, speed, and the backend and capture that ran.

    The backend is "native" or "reference" for the fused step, "pytorch" for a sampler that runs steps of its own. The
    choice says by what measurement a fused network's operators were left to PyTorch, or not. All of these are None
    before anything was drawn.
    """
    request, model = resolved.request, resolved.model
    others = [branch.network for branch in resolved.guidance.branches if branch.network is not model]
    return {
        "model": describe_model(model),
        "sampler": resolved.specs["sampler"],
        "guidance": resolved.specs["guidance"],
        "process": resolved.specs["process"],
        "steps": resolved.steps,
        "guiding": [describe_model(network) for network in others] or None,
        "cond": dict(resolved.told),
        "encoders": {name: found for name, found in resolved.sources.items() if found} or None,
        "seed": request.seed if isinstance(request.noise, str) else resolved.noise.seed,
        "noise": type(resolved.noise).__name__
        if isinstance(request.noise, str) or resolved.noise.seed is not None
        else lookup.describe("", resolved.noise),
        "latent": None if request.latent is None else {"sha256": digest(request.latent)},
        "start": None
        if request.start is None
        else {
            "sha256": digest(request.start),
            "strength": request.strength,
            "time": float(resolved.times[0]),
        },
        "known": None
        if resolved.given is None
        else {
            "sha256": digest(resolved.given.images),
            "mask_sha256": digest(resolved.given.mask),
            "resample": request.resample,
            "jump": request.jump,
        },
        "n": len(resolved.indices),
        "nfe": nfe,
        "batch_size": request.batch_size,
        "deterministic": request.deterministic,
        "seconds": clock.seconds,
        "images_per_second": clock.samples / clock.seconds if clock.seconds else None,
        "backend": backend,
        "choice": None if choice is None else choice.record(),
        "capture": None if capture is None else asdict(capture),
        "dtype": str(resolved.dtype).removeprefix("torch."),
        "network_dtype": str(resolved.network_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": str(resolved.device),
        "versions": versions(),
    }


def describe_model(model: Denoiser | Autoencoder) -> dict[str, Any]:
    """Returns name and sha256 of a model, and those of the autoencoder of a latent model.

    The sha256 is that of the file that its weights were loaded from, else of its tensors. The name of a model without a
    card is its `described_as`, else its class. Loaded weights that were changed since are no longer the file's: the
    sha256 is then that of the tensors, too.
    """
    if model.card is None:
        name, stated = getattr(model, "described_as", type(model).__name__), None
    else:
        name, stated = model.card["model"]["name"], model.card["weights"]["sha256"]
    beside = model.view.record() if isinstance(model, Denoiser) else {}
    return {"name": name, "sha256": weights_digest(model, stated), **beside}


def versions() -> dict[str, str]:
    """Returns the versions of trilemma, torch and Python."""
    return {"trilemma": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
