"""A grid of samples drawn while training."""

from __future__ import annotations

from pathlib import Path

from trilemma.interfaces.denoiser import Denoiser
from trilemma.train.recipe import Samples


def draw_sample_grid(denoiser: Denoiser, settings: Samples, seed: int, path: Path) -> None:
    """Draws `settings.n` samples from `denoiser` into the PNG `path`; the same noise every time."""
    from trilemma.engine.drawing import sample
    from trilemma.output import write_png_grid

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = sample(
        denoiser,
        settings.n,
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.guidance,
        cond=dict(settings.cond),
        seed=seed,
    )
    write_png_grid(path, drawn.samples, drawn.provenance)
