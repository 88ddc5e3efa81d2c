"""Inversion: from an image to the latent that a deterministic sampler would draw it from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from trilemma import lookup
from trilemma.engine.batches import Chunks
from trilemma.engine.images import checked_images
from trilemma.engine.request import Callback, InversionRequest, Request
from trilemma.engine.resolve import asked_steps, default_sampler, resolved_model
from trilemma.engine.resolved import Resolved
from trilemma.engine.sampling import SampleChunks, Samples
from trilemma.engine.signature import takes
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau, matrix, scalar
from trilemma.numerics.conversion import convert
from trilemma.numerics.newton import solve


@dataclass(frozen=True)
class Inverted(Samples):
    """Returned by `trilemma.invert`: the latents, and how well the sampler's steps lead from them to the images.

    Attributes:
        residual: [n], of each image the largest max |step(z) − z'|/max(1, max |z'|) of the steps that were solved;
            None where none was, with `refine=0`.
    """

    residual: Tensor | None = None


@takes(InversionRequest)
def invert(*arguments: Any, **options: Any) -> Inverted:
    """Returns the latents that `sample(model, latent=..., sampler=..., steps=...)` turns back into the images x.

    A sampler whose rows are one step each is run backwards, row by row. Each step z' = A z + B f(z, t) is solved for z
    by a Newton–Krylov method (`trilemma.numerics.newton.solve`), every image by itself, until the two sides differ by
    no more than `tolerance`; the provenance says by how much they differ at most. Inverting and drawing again is then
    exact to about that. Where z' has no preimage, or none is found in `refine` rounds, the nearest state that was met
    is taken, and a warning says so. Where z' has several preimages, under guidance, one of them is taken.

    Any other deterministic plan, with stages or a history, solves the probability-flow equation, and can solve it
    upwards too. The sampler's last step, from the smallest time t > 0 to the data, is solved for z as above; from t on
    the sampler's own plan runs on the rising times. Inverting and drawing again then agree to the sampler's error,
    which falls at its order. A sampler that adapts its steps to a tolerance runs upwards from the smallest time a
    network is asked at, and agrees to that tolerance. The residual is that of the one solved step.

    Args: of InversionRequest

    Raises:
        UsageError: for a sampler or a network that cannot be inverted, or any argument `sample` would refuse.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, section 5.4.
    """
    return _inverted(InversionRequest(*arguments, **options))


def _inverted(request: InversionRequest) -> Inverted:
    model = resolved_model(request.model, request.device)
    if model.draws:
        raise UsageError(
            f"{type(model).__name__} draws noise of its own at every evaluation, so that no latent leads back to an "
            "image; invert with a network that draws none"
        )
    process = model.process
    given = default_sampler(process) if request.sampler is None else request.sampler
    built, spec = lookup.build("sampler", given)
    forwards = cast(Sampler, built)
    solved = Solved(forwards, request.refine, request.tolerance) if request.refine else None
    steps = asked_steps(request.steps, model)
    parts = _parts(forwards, process, steps, solved)
    rows = [_rows(part, process, steps) for part in parts]
    latent = _data(model, request.x)
    record: dict[str, Any] = {}
    residual: Tensor | None = None
    tolerance = request.tolerance
    for number, part in enumerate(parts):
        callback = _counted(request.callback, sum(rows[:number]), sum(rows))
        options = {**request.shared(), "sampler": part, "callback": callback}
        chunks = SampleChunks(Request(model, latent=latent, **options))
        drawn = chunks.collect()
        latent, record = drawn.samples, _joined(record, drawn.provenance)
        if isinstance(part, Solved):
            residual = part.residuals(chunks.resolved)
            tolerance = part.allowed(chunks.resolved.network_dtype, chunks.resolved.dtype)
    found = None if residual is None else float(residual.max()) if len(residual) else 0.0
    record = {
        **record,
        "sampler": spec,
        "inversion": {
            "refine": request.refine,
            "tolerance": tolerance if request.refine else None,
            "residual": found,
        },
    }
    if residual is not None and tolerance is not None:
        _warn(residual, tolerance)
    return Inverted(latent, record, indices=drawn.indices, residual=residual)


def _data(model: Denoiser, images: Tensor) -> Tensor:
    """The data of images, which are checked where they are something else than the images themselves."""
    if model.view.is_direct:
        return images
    return model.view.data(checked_images("x", images, model.image_shape))


def _warn(residual: Tensor, tolerance: float) -> None:
    unsolved = int((residual > tolerance).sum())
    if unsolved:
        warnings.warn(
            f"{unsolved} of {len(residual)} images were inverted to a residual of {float(residual.max()):.2g} only, "
            f"above tolerance={tolerance:.2g}: their latents lead elsewhere; give weaker guidance, more steps or "
            "rounds (refine=)",
            UserWarning,
            stacklevel=4,
        )


def _parts(sampler: Sampler, process: Process, steps: int, solved: Solved | None) -> list[Sampler]:
    """Returns the samplers that run one after the other to invert a sampler.

    Args:
        solved: runs steps backwards by solving them; None where they are not solved.

    Raises:
        UsageError: where it cannot be inverted.
    """
    name = type(sampler).__name__

    def backwards(one_step: Sampler) -> Sampler:
        return Inverse(one_step) if solved is None else replace(solved, sampler=one_step)

    if process.components > 1:
        raise UsageError(
            f"{type(process).__name__} has {process.components} components, of which images are one; "
            "inversion needs a process of one"
        )
    if not sampler.has_plan:
        if sampler.tolerance is None or not sampler.deterministic:
            raise UsageError(f"{name} has no plan to invert; use for example {default_sampler(process)}")
        return [backwards(Landing(process.earliest_time)), Climbing(sampler)]
    times = sampler.times(process, steps)
    tableau = sampler.plan(process, times)
    noisy = any(any(matrix(row.C, tableau.components)) for row in tableau.rows)
    if noisy or tableau.clip is not None:
        raise UsageError(
            f"only a deterministic sampler without clip can be inverted; use for example {default_sampler(process)}"
        )
    if all(row.is_one_step and row.B for row in tableau.rows):
        return [backwards(sampler)]
    landing = backwards(Landing(float(times[-2])))
    return [landing, Rising(sampler)] if len(times) > 2 else [landing]


def _rows(part: Sampler, process: Process, steps: int) -> int:
    times = part.times(process, steps)
    return len(part.plan(process, times).rows) if part.has_plan else len(times) - 1


def _counted(callback: Callback | None, before: int, total: int) -> Callback | None:
    """Returns the callback of one part of an inversion, which counts the rows of all parts."""
    if callback is None:
        return None
    return lambda row, rows, t, state: callback(before + row, total, t, state)


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the provenance of the parts together, with their total cost."""
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
    z_s = (σ_s/σ_t) z_t + (α_s − α_t σ_s/σ_t) x̂₀, as the first step of the sampler itself is.

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
        alpha, sigma = process.alpha_sigma(times)
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
        except (ArithmeticError, ValueError) as error:
            # The sampler's plan relies on falling times.
            raise UsageError(
                f"{type(self.sampler).__name__} cannot be planned on rising times ({error}); use one that can"
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
    """A deterministic one-step sampler run backwards without solving its steps: plain DDIM inversion.

    Args:
        sampler: what to invert.
    """

    sampler: Sampler

    deterministic = True

    @property
    def order(self) -> int:
        return self.sampler.order

    def times(self, process: Process, steps: int) -> Tensor:
        """Returns the times [steps + 1] of the sampler, rising."""
        return self.sampler.times(process, steps).flip(0)

    def nfe(self, steps: int) -> int:
        return self.sampler.nfe(steps)

    def plan(self, process: Process, times: Tensor) -> Tableau:
        return inverse(self.sampler.plan(process, times.flip(0)), process, float(times[0]))


@dataclass(frozen=True)
class Solved(Sampler):
    """A deterministic one-step sampler run backwards, each of its steps solved for the state that it starts from.

    Args:
        sampler: what to invert.
        refine: rounds a step at most.
        bound: of the residual; by default that of the dtypes, see `invert`.
    """

    sampler: Sampler
    refine: int = 20
    bound: float | None = None
    _found: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    deterministic = True
    fullgraph = False

    @property
    def order(self) -> int:
        return self.sampler.order

    def times(self, process: Process, steps: int) -> Tensor:
        """Returns the times [steps + 1] of the sampler, rising."""
        return self.sampler.times(process, steps).flip(0)

    def nfe(self, steps: int) -> int:
        return self.sampler.nfe(steps)

    def allowed(self, network: torch.dtype, state: torch.dtype) -> float:
        """Returns the bound of the residual for a network and a state in these dtypes."""
        return _rounding(network, state) ** 0.7 if self.bound is None else self.bound

    def residuals(self, resolved: Resolved) -> Tensor:
        """Returns the largest residual of each image [n] of a request that was drawn."""
        request = resolved.request
        chunks = Chunks(resolved.indices, request.batch_size, request.deterministic)
        residual = torch.zeros(len(resolved.indices), dtype=torch.float64)
        for chunk, found in zip(chunks, self._found, strict=True):
            residual[chunk.positions] = found.cpu().double()[chunk.rows]
        return residual

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        process = predict.denoiser.process
        tableau = self.sampler.plan(process, times.flip(0))
        allowed = self.allowed(predict.network_dtype, z.dtype)
        precision = _rounding(predict.network_dtype, z.dtype)
        worst = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        ends = reversed(tableau.ends(float(times[0])))
        for step, (row, end) in enumerate(zip(reversed(tableau.rows), ends, strict=True), 1):
            goal, A, B = z, scalar(row.A), _weight(row)
            slope, _ = _in_v(row, tableau, process)

            def off(
                state: Tensor,
                goal: Tensor = goal,
                row: Row = row,
                A: float = A,
                B: float = B,
                to: float = end,
            ) -> Tensor:
                return A * state + B * predict(state, row.t, tableau.parameterization, to) - goal

            scale = goal.flatten(1).abs().amax(1).clamp_min(1)
            solution = solve(off, goal, scale, allowed, self.refine, precision, slope)
            bad = solution.residual.isinf().view(-1, *(1,) * (z.dim() - 1))
            z = solution.z.masked_fill(bad, torch.nan)
            worst = torch.maximum(worst, solution.residual)
            report(step, float(times[step]), z)
        self._found.append(worst)
        return z


def _rounding(*dtypes: torch.dtype) -> float:
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def inverse(tableau: Tableau, process: Process, end_time: float = 0.0) -> Tableau:
    """Returns the tableau that runs a one-step deterministic sampler backwards, to the error of its steps.

    A step of the sampler, written with v̂, is z' = a z + b v̂(z, t); v̂ at z' replaces v̂ at z:

        z = (z' − b v̂(z', t))/a.

    Args:
        tableau: of the sampler to invert, one linear combination of z and the current prediction a row.
        process: gives α and σ.
        end_time: of the state after the tableau's last row.
    """
    rows: list[Row] = []
    for row, end in zip(reversed(tableau.rows), reversed(tableau.ends(end_time)), strict=True):
        a, b = _in_v(row, tableau, process)
        # The network is asked for the step that is inverted.
        rows.append(Row(row.t, 1 / a, ((0, -b / a),), to=end))
    return Tableau(tuple(rows), "v")


def _in_v(row: Row, tableau: Tableau, process: Process) -> tuple[float, float]:
    """a and b of a step written as a z + b v̂(z, t)."""
    time = torch.tensor(row.t, dtype=torch.float64)
    p, q = convert("v", tableau.parameterization, process.alpha(time), process.sigma(time))
    B = _weight(row)
    return scalar(row.A) + B * p.item(), B * q.item()


def _weight(row: Row) -> float:
    return sum(scalar(coefficient) for _, coefficient in row.B)
