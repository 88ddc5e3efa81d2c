"""What made a set of samples, as a record that can be written as JSON."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from trilemma import lookup
from trilemma.engine.images import digest
from trilemma.engine.noise import KeyedNoise
from trilemma.models.weights import weights_digest
from trilemma.version import __version__

if TYPE_CHECKING:
    from trilemma.engine.graphs import Capture
    from trilemma.engine.request import Job
    from trilemma.interfaces.denoiser import Denoiser


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
    job: Job, clock: Clock, nfe: int, backend: str | None, capture: Capture | None
) -> dict[str, Any]:
    """The record of a job: resolved specs, seed, NFE a sample, speed, and the backend and capture that really ran.

    The backend is "native" or "reference" for the fused step, "pytorch" for a sampler that runs steps of its own; it
    and the capture are None before anything was drawn.
    """
    return {
        "model": describe_model(job.model),
        "sampler": job.specs["sampler"],
        "guidance": job.specs["guidance"],
        "process": job.specs["process"],
        "steps": job.steps,
        "guiding": [describe_model(network) for network in job.networks if network is not job.model] or None,
        "cond": {name: lookup.condition(value) for name, value in job.cond.items()},
        "seed": job.seed,
        "noise": "KeyedNoise" if isinstance(job.noise, KeyedNoise) else lookup.describe("", job.noise),
        "latent": None if job.latent is None else {"sha256": digest(job.latent)},
        "start": None
        if job.start is None
        else {"sha256": digest(job.start), "strength": job.strength, "time": float(job.times[0])},
        "known": None
        if job.known is None
        else {
            "sha256": digest(job.known.images),
            "mask_sha256": digest(job.known.mask),
            "resample": job.resample,
            "jump": job.jump,
        },
        "n": len(job.indices),
        "nfe": nfe,
        "batch_size": job.batch_size,
        "deterministic": job.deterministic,
        "seconds": clock.seconds,
        "images_per_second": clock.samples / clock.seconds if clock.seconds else None,
        "backend": backend,
        "capture": None if capture is None else asdict(capture),
        "dtype": str(job.dtype).removeprefix("torch."),
        "network_dtype": str(job.network_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": str(job.device),
        "versions": versions(),
    }


def describe_model(model: Denoiser) -> dict[str, Any]:
    """Name and sha256 of a model: of the file that its weights were loaded from, else of its tensors.

    The name of a model without a card is its `described_as`, else its class. Loaded weights that were changed since are
    no longer the file's: the sha256 is then that of the tensors, too.
    """
    if model.card is None:
        name = getattr(model, "described_as", type(model).__name__)
        return {"name": name, "sha256": weights_digest(model)}
    stated = model.card["weights"]["sha256"]
    return {"name": model.card["model"]["name"], "sha256": weights_digest(model, stated)}


def versions() -> dict[str, str]:
    """Versions of trilemma, torch and Python."""
    return {"trilemma": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
