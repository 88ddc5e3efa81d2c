"""Inversion: from an image to the latent that a deterministic sampler would draw it from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.conversion import convert
from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.guidance import Guidance
from trilemma.integers import checked_integer
from trilemma.loading import load
from trilemma.prediction import Prediction
from trilemma.process import Process
from trilemma.runner import Callback
from trilemma.sampler import Sampler
from trilemma.sampling import Samples, sample
from trilemma.tableau import Row, Tableau, matrix, scalar


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

    A sampler whose rows are one step each is run backwards, row by row (`inverse`). Any other deterministic plan, with
    stages or a history, is a method for the probability-flow equation, which it solves just as well upwards: the last
    step of the way back, from the smallest time t > 0 to the data, is run backwards, and from t on the sampler's own
    plan is taken on the rising times. There and back then agree to the sampler's error, which falls at its order. One
    that adapts its steps to a tolerance goes up from the smallest time a network is asked at, and agrees to it.

    Args:
        model: a denoiser, or the name or directory of one.
        x: images [n, C, H, W] in the range of the model's data.
        sampler: a deterministic sampler; the way back must use the same one.
        steps: of the sampler; the way back must use as many.
        refine: further fixed-point iterations a step that is run backwards, each with one more evaluation of the
            network; 0 is plain DDIM inversion, and with enough of them the way there and back of a one-step sampler
            is exact to rounding.
        guidance, cond, indices, batch_size, deterministic, device, dtype, callback, progress: as for
            `sample`; `indices` decides which entry of a list in `cond` an image takes.

    Returns:
        Samples whose `samples` are the latents [n, C, H, W].

    Raises:
        UsageError: for a sampler that cannot be inverted, or any argument `sample` would refuse.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, section 5.4.
    """
    refine = checked_integer(refine, "refine", 0, what="is not a number of iterations")
    built, spec = lookup.build("sampler", sampler)
    forwards = cast(Sampler, built)
    denoiser = load(model, device=device, fused=True) if isinstance(model, str | Path) else model
    parts = _parts(forwards, denoiser.process, steps, refine)
    rows = [_rows(part, denoiser.process, steps) for part in parts]
    latent: Tensor = x
    record: dict[str, Any] = {}
    for number, part in enumerate(parts):
        drawn = sample(
            denoiser,
            sampler=part,
            steps=steps,
            guidance=guidance,
            cond=cond,
            indices=indices,
            latent=latent,
            batch_size=batch_size,
            deterministic=deterministic,
            device=device,
            dtype=dtype,
            callback=_counted(callback, sum(rows[:number]), sum(rows)),
            progress=progress,
        )
        latent, record = drawn.samples, _joined(record, drawn.provenance)
    return Samples(latent, {**record, "sampler": spec, "inversion": {"refine": refine}})


def _parts(sampler: Sampler, process: Process, steps: int, refine: int) -> list[Sampler]:
    """What is run one after the other to invert a sampler.

    Raises:
        UsageError: where it cannot be inverted.
    """
    name = type(sampler).__name__
    if process.components > 1:
        raise UsageError(
            f"{type(process).__name__} has {process.components} components, of which images are one; "
            "inversion needs a process of one"
        )
    if not sampler.has_plan:
        if sampler.tolerance is None or not sampler.deterministic:
            raise UsageError(f"{name} has no plan to invert; use for example ddim:eta=0")
        return [Inverse(Landing(process.earliest_time), refine), Climbing(sampler)]
    times = sampler.times(process, steps)
    tableau = sampler.plan(process, times)
    noisy = any(any(matrix(row.C, tableau.components)) for row in tableau.rows)
    if noisy or tableau.clip is not None:
        raise UsageError(
            "only a deterministic sampler without clip can be inverted; use for example ddim:eta=0"
        )
    if all(not row.base and all(lag == 0 for lag, _ in row.B) for row in tableau.rows):
        return [Inverse(sampler, refine)]
    landing = Inverse(Landing(float(times[-2])), refine)
    return [landing, Rising(sampler)] if len(times) > 2 else [landing]


def _rows(part: Sampler, process: Process, steps: int) -> int:
    return len(part.plan(process, part.times(process, steps)).rows) if part.has_plan else steps


def _counted(callback: Callback | None, before: int, total: int) -> Callback | None:
    """The callback of one part of an inversion, which counts the rows of all of them."""
    if callback is None:
        return None
    return lambda row, rows, t, state: callback(before + row, total, t, state)


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of what was run one after the other: what it cost together."""
    if not first:
        return dict(second)
    seconds = first["seconds"] + second["seconds"]
    return {
        **second,
        "nfe": first["nfe"] + second["nfe"],
        "seconds": seconds,
        "images_per_second": second["n"] / seconds if seconds else None,
    }


@dataclass(frozen=True)
class Landing(Sampler):
    """The step from a time t to the data, z₀ = x̂₀(z_t, t), whatever the number of steps asked for.

    Args:
        t: where the step begins.
    """

    t: float

    order = 1
    deterministic = True

    def times(self, process: Process, steps: int) -> Tensor:
        return torch.tensor([self.t, 0.0], dtype=torch.float64)

    def nfe(self, steps: int) -> int:
        return 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        return Tableau((Row(self.t, 0.0, ((0, 1.0),)),), "x0")


@dataclass(frozen=True)
class Rising(Sampler):
    """A sampler's plan on its times upwards, from the smallest above 0 to the first.

    Where nothing is left of the data at the top (α = 0, λ = −∞) the last step is one of first order,
    z_s = (σ_s/σ_t) z_t + (α_s − α_t σ_s/σ_t) x̂₀, as the first step of the way back is.

    Args:
        sampler: whose plan is run.
    """

    sampler: Sampler

    deterministic = True

    @property
    def order(self) -> int:
        return self.sampler.order

    def times(self, process: Process, steps: int) -> Tensor:
        return self.sampler.times(process, steps)[:-1].flip(0)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = process.levels(times)
        if alpha[-1] > 0:
            return self._upwards(process, times)
        ratio = (sigma[-1] / sigma[-2]).item()
        weight = (alpha[-1] - alpha[-2] * ratio).item()
        if len(times) == 2:
            return Tableau((Row(float(times[0]), ratio, ((0, weight),)),), "x0")
        below = self._upwards(process, times[:-1])
        p, q = (entry.item() for entry in convert(below.parameterization, "x0", alpha[-2], sigma[-2]))
        last = Row(float(times[-2]), ratio + weight * p, ((0, weight * q),))
        return replace(below, rows=(*below.rows, last))

    def _upwards(self, process: Process, times: Tensor) -> Tableau:
        try:
            return self.sampler.plan(process, times)
        except (ArithmeticError, ValueError) as error:  # a plan that takes it for granted that times fall
            raise UsageError(
                f"{type(self.sampler).__name__} cannot be planned on rising times ({error}); use for example ddim:eta=0"
            ) from error


@dataclass(frozen=True)
class Climbing(Sampler):
    """An adaptive sampler's own steps upwards, from the smallest time a network is asked at to the prior.

    Args:
        sampler: whose steps are taken.
    """

    sampler: Sampler

    deterministic = True
    fullgraph = False

    @property
    def order(self) -> int:
        return self.sampler.order

    @property
    def tolerance(self) -> float | None:  # type: ignore[override]
        return self.sampler.tolerance

    def times(self, process: Process, steps: int) -> Tensor:
        last = float(self.sampler.times(process, steps)[0])
        return torch.linspace(process.earliest_time, last, steps + 1, dtype=torch.float64)

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        return self.sampler.sample(predict, z, times, noise, report)


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
    """
    rows: list[Row] = []
    for row in reversed(tableau.rows):
        time = torch.tensor(row.t, dtype=torch.float64)
        p, q = convert("v", tableau.parameterization, process.alpha(time), process.sigma(time))
        B = sum(scalar(coefficient) for _, coefficient in row.B)
        a, b = scalar(row.A) + B * p.item(), B * q.item()
        rows += [Row(row.t, 1 / a, ((0, -b / a),), base=base) for base in range(refine + 1)]
    return Tableau(tuple(rows), "v")
