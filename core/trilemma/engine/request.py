"""A request for samples, checked and resolved before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.checks import checked_integer, checked_number
from trilemma.engine.batches import DETERMINISTIC_BATCH
from trilemma.engine.images import checked_images, chosen
from trilemma.engine.inpainting import Known, known_region
from trilemma.engine.networks import as_conditions
from trilemma.engine.noise import KeyedNoise, NoiseSource
from trilemma.engine.program import Program, lower
from trilemma.engine.resampling import check_resampling, resampled
from trilemma.engine.soundness import check_start, warn_of_plan, warn_of_prior
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance, Unguided, all_targets
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import checked_plan
from trilemma.machine.memory import check_memory
from trilemma.models.loading import load
from trilemma.numerics.grids import check_steps
from trilemma.numerics.index_ranges import INDEX_LIMIT, IndexRanges
from trilemma.numerics.normal import PRIOR, STEP
from trilemma.registry import building


@dataclass(frozen=True)
class Job:
    """Everything that decides a set of samples.

    Attributes:
        model, sampler, guidance: the objects; `specs` holds their canonical spec strings.
        steps: of the whole grid.
        times: [steps + 1], float64; with images to start from, those that are run.
        program: the lowered plan; None for a sampler that runs its own `sample`.
        cond: conditions by name, as given.
        branches: evaluations of a network that a call of the guided prediction pays at most.
        networks: what evaluates each branch: the model, unless the guidance brings another.
        seed: None where the noise is injected.
        indices: which samples.
        latent: states [n, ...] to start from; None for the prior.
        start, strength: images that are noised to start from, sample i from entry i modulo their number, and up to
            which time; None for the prior.
        known: the region that is given; None for none.
        resample, jump: passes that every so many steps take; 1 for one.
        shape: of one state, (K·C, H, W).
        dtype, device: of the state; network_dtype: of the network's parameters.
    """

    model: Denoiser
    sampler: Sampler
    guidance: Guidance
    specs: dict[str, str | None]
    steps: int
    times: Tensor
    program: Program | None
    cond: dict[str, Any]
    branches: int
    networks: tuple[Denoiser, ...]
    noise: NoiseSource
    seed: int | None
    indices: Sequence[int]
    latent: Tensor | None
    start: Tensor | None
    strength: float | None
    known: Known | None
    resample: int
    jump: int
    batch_size: int
    deterministic: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    network_dtype: torch.dtype
    device: torch.device

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: of the data, or of the whole state where the grid ends before it gets there."""
        return self.model.shape if float(self.times[-1]) == 0 else self.shape

    @property
    def nfe(self) -> int:
        """Evaluations of a network, the guidance's own included, that one sample pays."""
        if self.program is not None:
            own = sum(self.guidance.own_evaluations(t) for t in self.program.times)
            return sum(self.program.evaluated) + own
        own = self.guidance.own_evaluations(float(self.times[0]))
        return self.sampler.nfe(len(self.times) - 1) * (self.branches + own)

    def conditions(self, indices: Tensor) -> dict[str, Tensor]:
        """The network's conditions [G·B] for samples [B], the branches one after the other; and the guidance's
        targets [B].
        """
        encoded = [self.model.encode(branch, indices) for branch in self.guidance.branches(self.cond)]
        joined = {name: torch.cat([branch[name] for branch in encoded]) for name in encoded[0]}
        return {**joined, **as_conditions(all_targets(self.guidance, self.cond, indices, encoded[0]))}

    def image_noise(self, indices: Tensor) -> Tensor:
        """ξ [B, ...] of images: another than the prior's, which the sample of that seed was drawn from."""
        return self.noise.normal(indices, 1, self.shape, stream=PRIOR, dtype=self.dtype, device=self.device)

    def prior(self, indices: Tensor) -> Tensor:
        """States [B, ...] at the first time: the prior, or noised images."""
        if self.start is not None:
            alpha, sigma = self.first_level
            noise = self.image_noise(indices)
            return alpha * chosen(self.start, indices, noise) + sigma * noise
        noise = self.noise.normal(indices, 0, self.shape, stream=PRIOR, dtype=self.dtype, device=self.device)
        prior = self.model.process.prior(noise)
        return prior if self.prior_scale == 1 else prior * self.prior_scale

    def imposed(self, state: Tensor, indices: Tensor) -> Tensor:
        """States [B, ...] at the first time with the known region put in."""
        if self.known is None:
            return state
        return self.known.imposed(state, indices, self.image_noise(indices), self.first_level)

    @cached_property
    def first_level(self) -> tuple[float, float]:
        """(α, σ) of the first time."""
        alpha, sigma = self.model.process.levels(self.times[:1])
        return alpha.item(), sigma.item()

    @cached_property
    def prior_scale(self) -> float:
        """How far below the prior a grid begins: √(α_t² + σ_t²) of its first time against that of t = 1.

        For data of variance 1 that is the deviation of the state. A variance-preserving process has 1 everywhere.
        """
        if self.model.process.components > 1 or self.times[0] == 1:
            return 1.0
        ends = torch.stack([self.times[0], torch.ones((), dtype=torch.float64)])
        alpha, sigma = self.model.process.levels(ends)
        first, last = (alpha.square() + sigma.square()).sqrt().tolist()
        return 1.0 if abs(first - last) < 1e-9 * last else first / last

    def step_noise(self, indices: Tensor, step: int) -> Tensor:
        """ξ [B, ...] of a step."""
        return self.noise.normal(indices, step, self.shape, stream=STEP, dtype=self.dtype, device=self.device)

    def check_finite(self, samples: Tensor, indices: Tensor) -> None:
        """Raises TrilemmaError where a finished sample is not finite."""
        bad = ~samples.flatten(1).isfinite().all(1)
        if bad.any():
            raise TrilemmaError(
                f"{type(self.sampler).__name__} gave a value that is not finite in sample "
                f"{int(indices[bad][0])}; check the model's weights, or use a wider dtype"
            )


def resolve_job(
    model: Denoiser | str | Path,
    n: int,
    *,
    sampler: Sampler | str | None,
    steps: int,
    guidance: Guidance | str | None,
    cond: Mapping[str, Any] | None,
    seed: int,
    indices: Sequence[int] | Tensor | None,
    latent: Tensor | None,
    start: Tensor | None,
    strength: float | None,
    known: Tensor | None,
    mask: Tensor | None,
    resample: int,
    jump: int,
    batch_size: int,
    deterministic: bool,
    device: str | torch.device | None,
    dtype: torch.dtype | str | None,
    noise: NoiseSource | None,
) -> Job:
    """The job that these arguments of `trilemma.sample` ask for.

    Raises:
        UsageError: for an impossible argument.
    """
    batch_size = checked_integer(batch_size, "batch_size", 1, what="is not a number of samples")
    if noise is None:
        noise = KeyedNoise(checked_integer(seed, "seed", 0, 2**64 - 1, what="is not a seed"))
    denoiser = _resolve_model(model, device)
    process = denoiser.process
    shape = (process.components * denoiser.shape[0], *denoiser.shape[1:])
    if latent is not None:
        _check_latent(latent, shape)
        n = len(latent)
    strength = _check_start(start, strength, latent, process, shape)
    region = known_region(None if known is None else checked_images("known", known, shape), mask, shape)
    check_resampling(resample, jump, region is not None)
    if region is not None and process.components > 1:
        raise UsageError(
            f"{type(process).__name__} has {process.components} components; inpainting needs one"
        )
    if start is not None and n == 1:
        n = len(start)
    wanted = _checked_indices(n, indices)
    if latent is not None and len(latent) != len(wanted):
        raise UsageError(
            f"{len(latent)} states to start from were given for {len(wanted)} samples; give one a sample"
        )

    sampler_used, sampler_spec = _build(
        "sampler", denoiser.usual_sampler if sampler is None else sampler, Sampler
    )
    _check_components(sampler_used, process)
    steps = check_steps(process.table, steps)
    times = sampler_used.times(process, steps)
    if strength is not None:
        times = _below(times, strength)
    label = sampler_spec.partition(":")[0]
    check_start(label, sampler_used, process, times)
    if latent is None and start is None:
        warn_of_prior(process)
    cond = dict(cond or {})
    guide, guidance_spec = _guidance(denoiser, cond, guidance)
    guide.check(denoiser, cond)
    guide = guide.on_grid(process, times)
    branches = len(guide.branches(cond))
    others = guide.networks(denoiser)
    for network in others.values():
        if _where(_resolve_model(network, None), None) != _where(denoiser, None):
            raise UsageError(
                "the guidance's network differs from the model in device or dtype; move it with .to"
            )
    network_dtype, network_device = _where(denoiser, device)
    job = Job(
        model=denoiser,
        sampler=sampler_used,
        guidance=guide,
        specs={"sampler": sampler_spec, "guidance": guidance_spec, "process": _process_spec(denoiser)},
        steps=steps,
        times=times,
        program=None,
        cond=cond,
        branches=branches,
        networks=tuple(others.get(branch, denoiser) for branch in range(branches)),
        noise=noise,
        seed=noise.seed if isinstance(noise, KeyedNoise) else None,
        indices=wanted,
        latent=latent,
        start=start,
        strength=strength,
        known=region,
        resample=resample,
        jump=jump,
        batch_size=batch_size,
        deterministic=deterministic,
        shape=shape,
        dtype=_checked_dtype(dtype) or network_dtype or torch.float32,
        network_dtype=network_dtype or _checked_dtype(dtype) or torch.float32,
        device=network_device,
    )
    rows = DETERMINISTIC_BATCH if deterministic else min(batch_size, len(wanted))
    check_memory(
        4 * rows * branches * math.prod(shape) * job.dtype.itemsize,
        f"batches of {rows} samples of shape {shape}",
        "give a smaller batch_size",
        network_device,
    )
    job.conditions(torch.zeros(1, dtype=torch.int64))  # refuses bad conditions before any work
    if not sampler_used.has_plan:
        if region is not None:
            raise UsageError(
                f"{type(sampler_used).__name__} runs steps of its own, which know of no mask; "
                "inpaint with a sampler that has a plan, such as ddim"
            )
        return job
    evaluations = sampler_used.nfe(steps) if len(times) == steps + 1 else None
    tableau = checked_plan(sampler_used.plan(process, times), type(sampler_used).__name__, evaluations)
    warn_of_plan(label, tableau, process, times)
    if resample > 1:
        tableau = resampled(tableau, process, times, resample, jump)
    return replace(
        job, program=lower(tableau, denoiser.parameterization, process, guide, job.branches, float(times[-1]))
    )


def _check_components(sampler: Sampler, process: Process) -> None:
    if sampler.components is None or process.components in sampler.components:
        return
    K = process.components
    fitting = ", ".join(building.samplers_of_components(K)) or "none of the installed ones"
    raise UsageError(
        f"{lookup.describe('sampler', sampler).partition(':')[0]} does not run on {K} component{'s' if K > 1 else ''}, "
        f"which {type(process).__name__} has; samplers that do: {fitting}"
    )


def _guidance(
    denoiser: Denoiser, cond: Mapping[str, Any], given: Guidance | str | None
) -> tuple[Guidance, str | None]:
    """The guidance that was asked for, else the one that the model's card names for samples with a condition."""
    if given is None and any(value is not None for value in cond.values()):
        given = denoiser.usual_guidance
    if given is None or isinstance(given, Unguided):
        return Unguided(), None
    found: Guidance
    found, spec = _build("guidance", given, Guidance)
    return found, spec


def _build(kind: str, given: Any, expected: type) -> tuple[Any, str]:
    component, spec = lookup.build(kind, given)
    if not isinstance(component, expected):
        raise UsageError(f"{spec} is not a {kind}; give a spec string or an instance of {expected.__name__}")
    return component, spec


def _resolve_model(model: Denoiser | str | Path, device: str | torch.device | None) -> Denoiser:
    if isinstance(model, str | Path):
        return load(model, device=device, fused=True)
    if isinstance(getattr(model, "_orig_mod", None), Denoiser):
        raise UsageError(
            "torch.compile made another module of the model; compile it in place by model.compile()"
        )
    if not isinstance(model, Denoiser):
        raise UsageError(
            f"{type(model).__name__} is not a denoiser; give one, a model's name or directory, or make one of a "
            "network by trilemma.wrap(network, process, parameterization, shape)"
        )
    for module in model.modules():
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (random or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise UsageError(
                f"the model's {type(module).__name__} is in training mode; call model.eval() first"
            )
    return model


def _where(model: Denoiser, device: str | torch.device | None) -> tuple[torch.dtype | None, torch.device]:
    """dtype (None for a network without parameters) and device of a network."""
    tensors = model.own_tensors()
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    if not tensors:
        return None, torch.device(device or "cpu")
    found = tensors[0].device
    if device is not None and torch.device(device).type != found.type:
        raise UsageError(
            f"the model is on {found}, not on {device}; move it there with model.to({str(device)!r})"
        )
    return (floating[0] if floating else None), found


def _process_spec(model: Denoiser) -> str:
    if model.card is not None:
        return str(model.card["process"]["spec"])
    process: Process = model.process
    return str(lookup.build("process", process)[1])


def _checked_indices(n: int, indices: Sequence[int] | Tensor | None) -> Sequence[int]:
    if indices is None:
        return _of_ranges(range(checked_integer(n, "n", 1, what="is not a number of samples")))
    if isinstance(indices, range | IndexRanges):
        return _of_ranges(indices)
    wanted = indices.tolist() if hasattr(indices, "tolist") else indices
    return [
        index
        if type(index) is int and 0 <= index < INDEX_LIMIT
        else checked_integer(index, "sample index", 0, INDEX_LIMIT - 1, what="is out of range")
        for index in (wanted if isinstance(wanted, Iterable) else [wanted])
    ]


def _of_ranges(indices: range | IndexRanges) -> Sequence[int]:
    """Indices that are not listed: only the ends of each range are looked at."""
    ends = [indices[:1], indices[-1:]] if isinstance(indices, range) else []
    runs = indices.runs if isinstance(indices, IndexRanges) else [(end[0], end[0] + 1) for end in ends if end]
    for start, stop in runs:
        if not 0 <= start < stop <= INDEX_LIMIT:
            bad = start if start < 0 else stop - 1
            raise UsageError(f"sample index {bad} is out of range; give integers from 0 to 2**56 - 1")
    return indices


def _checked_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise UsageError(
            f"dtype={dtype!r} is no floating-point dtype; give float32, bfloat16, float16 or float64"
        )
    return found


def _check_latent(latent: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(latent, Tensor) or latent.shape[1:] != shape or not latent.is_floating_point():
        found = tuple(latent.shape) if isinstance(latent, Tensor) else type(latent).__name__
        raise UsageError(
            f"the states to start from are {found}; expected floating-point ones of shape {('n', *shape)}"
        )
    if not math.isfinite(float(latent.abs().max() if latent.numel() else 0.0)):
        raise UsageError("the states to start from hold values that are not finite; give finite ones")


def _check_start(
    start: Tensor | None,
    strength: float | None,
    latent: Tensor | None,
    process: Process,
    shape: tuple[int, ...],
) -> float | None:
    """How far the images to start from are noised; None where there are none."""
    if start is None:
        if strength is not None:
            raise UsageError(f"strength={strength!r} says how far start= is noised; give start= too")
        return None
    if latent is not None:
        raise UsageError("latent= and start= both say where to begin; give one of them")
    if process.components > 1:
        raise UsageError(f"{type(process).__name__} has {process.components} components; start= needs one")
    checked_images("start", start, shape)
    strength = 0.6 if strength is None else strength
    return checked_number(strength, "strength", 0, 1, what="is no time to noise to", above=True)


def _below(times: Tensor, strength: float) -> Tensor:
    """The times of a grid up to a strength.

    Raises:
        UsageError: for a strength below all of them.
    """
    kept = times[times <= strength + 1e-9]
    if len(kept) < 2:
        raise UsageError(
            f"strength={strength:g} is below {float(times[-2]):g}, the smallest time of the grid: no step would "
            f"be run; "
            "give a larger strength or more steps"
        )
    return kept
