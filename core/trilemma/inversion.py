"""Inversion: from an image to the latent that a deterministic sampler would draw it from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.conversion import convert
from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.guidance import Guidance
from trilemma.process import Process
from trilemma.runner import Callback
from trilemma.sampler import Sampler
from trilemma.sampling import Samples, sample
from trilemma.tableau import Row, Tableau, scalar


def invert(
    model: Denoiser | str | Path,
    x: Tensor,
    *,
    sampler: Sampler | str = "ddim",
    steps: int = 50,
    refine: int = 3,
    guidance: Guidance | str | None = None,
    cond: Mapping[str, Any] | None = None,
    indices: Sequence[int] | Tensor | None = None,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Samples:
    """The latents that `sample(model, latent=..., sampler=..., steps=...)` turns back into the images x.

    Args:
        model: a denoiser, or the name or directory of one.
        x: images [n, C, H, W] in the range of the model's data.
        sampler: a deterministic sampler; the way back must use the same one.
        steps: of the sampler; the way back must use as many.
        refine: further fixed-point iterations a step, each with one more evaluation of the network; 0 is
            plain DDIM inversion, and with enough of them the way there and back is exact to rounding.
        guidance, cond, indices, batch_size, deterministic, device, dtype, callback, progress: as for
            `sample`; `indices` decides which entry of a list in `cond` an image takes.

    Returns:
        Samples whose `samples` are the latents [n, C, H, W].

    Raises:
        UsageError: for a sampler that cannot be inverted, or any argument `sample` would refuse.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, section 5.4.
    """
    if isinstance(refine, bool) or not isinstance(refine, int) or refine < 0:
        raise UsageError(f"refine={refine!r} is not a number of iterations; give an integer of at least 0")
    forwards, spec = lookup.build("sampler", sampler)
    latents = sample(
        model,
        sampler=Inverse(forwards, refine),
        steps=steps,
        guidance=guidance,
        cond=cond,
        indices=indices,
        latent=x,
        batch_size=batch_size,
        deterministic=deterministic,
        device=device,
        dtype=dtype,
        callback=callback,
        progress=progress,
    )
    return Samples(latents.samples, {**latents.provenance, "sampler": spec, "inversion": {"refine": refine}})


@dataclass(frozen=True)
class Inverse(Sampler):
    """A deterministic one-step sampler run backwards, from the data to the prior.

    Args:
        sampler: what to invert.
        refine: further fixed-point iterations a step.
    """

    sampler: Sampler
    refine: int = 3

    deterministic = True

    @property
    def order(self) -> int:
        return self.sampler.order

    def times(self, process: Process, steps: int) -> Tensor:
        """Times [steps + 1] of the sampler, rising."""
        return self.sampler.times(process, steps).flip(0)

    def nfe(self, steps: int) -> int:
        return self.sampler.nfe(steps) * (self.refine + 1)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        if not self.sampler.has_plan:
            raise UsageError(
                f"{type(self.sampler).__name__} has no plan to invert; use for example ddim:eta=0"
            )
        return inverse(self.sampler.plan(process, times.flip(0)), process, self.refine)


def inverse(tableau: Tableau, process: Process, refine: int) -> Tableau:
    """The tableau that runs a one-step deterministic sampler backwards.

    A step of the sampler, written with v̂, is z' = a z + b v̂(z, t); given z' its preimage is the fixed point of

        z ← (z' − b v̂(z, t))/a,

    which a row takes once from z = z' and `refine` more rows repeat from their own answer: each keeps z' as its
    base, one state further back every time. With v̂ the iteration contracts at both ends of the process: for DDIM
    a = cos δ and b = −sin δ with δ the angle of the step, and v̂ flattens where the data or the noise dominates;
    with ε̂ it would hardly move near the prior, with x̂₀ it would diverge near the data.

    Args:
        tableau: of the sampler to invert, one linear combination of z and the current prediction a row.
        process: gives α and σ.
        refine: further iterations a step; 0 is plain DDIM inversion, each more one closer to exact.

    Raises:
        UsageError: for a tableau with noise, a clip or earlier predictions.
    """
    one_step = all(not row.base and all(lag == 0 for lag, _ in row.B) for row in tableau.rows)
    if any(row.C != 0 for row in tableau.rows) or tableau.clip is not None or not one_step:
        raise UsageError(
            "only a deterministic one-step sampler without clip can be inverted; use for example ddim:eta=0"
        )
    rows: list[Row] = []
    for row in reversed(tableau.rows):
        time = torch.tensor(row.t, dtype=torch.float64)
        p, q = convert("v", tableau.parameterization, process.alpha(time), process.sigma(time))
        B = sum(scalar(coefficient) for _, coefficient in row.B)
        a, b = scalar(row.A) + B * p.item(), B * q.item()
        rows += [Row(row.t, 1 / a, ((0, -b / a),), base=base) for base in range(refine + 1)]
    return Tableau(tuple(rows), "v")
