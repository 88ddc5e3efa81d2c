"""From a request to all that its loop needs, checked before anything is drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.checks import checked_integer
from trilemma.engine.batches import DETERMINISTIC_BATCH
from trilemma.engine.brownian import brownian_noise
from trilemma.engine.images import checked_images
from trilemma.engine.inpainting import Known, known_region
from trilemma.engine.noise import KeyedNoise, NoiseSource
from trilemma.engine.planning import planned, warn
from trilemma.engine.program import Program, guided
from trilemma.engine.request import Request
from trilemma.engine.resolved import Resolved
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Guidance, Unguided
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.machine.memory import check_memory
from trilemma.models.cascade import Cascade
from trilemma.models.loading import load
from trilemma.numerics.grids import check_steps
from trilemma.numerics.index_ranges import INDEX_LIMIT, IndexRanges
from trilemma.registry import building

T = TypeVar("T")

# Number of steps where neither the request nor the model's card names one.
STEPS = 50


def resolve(request: Request, until: float | None = None) -> Resolved:
    """Returns a request with every name looked up and every default filled in.

    Args:
        request: as it was made.
        until: the time at which it stops, its states then being the samples; None for the data.

    Raises:
        UsageError: for an impossible request.
    """
    model = resolved_model(request.model, request.device)
    process = model.process
    shape = (process.components * model.shape[0], *model.shape[1:])
    indices = _checked_indices(request, shape)
    known = _checked_images(request, model)
    sampler, sampler_spec = _sampler(request, model)
    steps = check_steps(process.table, asked_steps(request.steps, model))
    passes = (request.resample, request.jump)
    plan = planned(sampler, process, steps, model.parameterization, request.strength, passes, until)
    warn(plan, process, request.latent is None and request.start is None)
    given = request.cond or {}
    guidance, guidance_spec = _guidance(request, model, given)
    network_dtype, device = _place(model, request.device)
    # Each value is prepared here, once: branches that share it share its tensors.
    cond = model.prepare_given(given)
    bound = guidance.bind(model, cond, plan.times)
    _check_together(bound, model)
    _check_own_evaluations(bound, model, plan.times)
    assert not isinstance(request.dtype, str)
    program = None if plan.program is None else guided(plan.program, bound)
    resolved = Resolved(
        request=request,
        model=model,
        sampler=sampler,
        guidance=bound,
        cond=tuple(model.prepare(branch.cond).to(device) for branch in bound.branches),
        told={name: model.conditions[name].recorded(value, cond[name]) for name, value in given.items()},
        specs={"sampler": sampler_spec, "guidance": guidance_spec, "process": _process_spec(model)},
        steps=steps,
        times=plan.times,
        program=program,
        noise=_noise(request, process, program, plan.times),
        indices=indices,
        known=None if known is None else known.seen_by(model.view, model.shape),
        given=known,
        shape=shape,
        dtype=request.dtype or network_dtype or torch.float32,
        network_dtype=network_dtype or request.dtype or torch.float32,
        device=device,
    )
    _check_batch(resolved)
    _check_encoders(resolved)
    if plan.program is None and known is not None:
        raise UsageError(
            f"{type(sampler).__name__} runs steps of its own, which know of no mask; "
            f"inpaint with a sampler that has a plan, such as {default_sampler(process)}"
        )
    return resolved


def resolved_model(
    model: Denoiser | Cascade | str | Path, device: str | torch.device | None = None
) -> Denoiser:
    """Returns the denoiser that a request names or brings.

    Raises:
        UsageError: for anything else, or a network in training mode that draws at random.
    """
    if isinstance(model, str | Path):
        model = load(model, device=device, fused=True)
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
        if not module.training:
            continue
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if random or isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UsageError(
                f"the model's {type(module).__name__} is in training mode; call model.eval() first"
            )
    return model


def asked_steps(steps: int | None, model: Denoiser) -> int:
    """Returns the number of steps of a request: by default that of the model's card, else 50."""
    found = model.usual_steps if steps is None else steps
    return STEPS if found is None else found


def _sampler(request: Request, model: Denoiser) -> tuple[Sampler, str]:
    process = model.process
    given = request.sampler
    if given is None:
        given = model.usual_sampler or default_sampler(process)
    sampler, spec = _built("sampler", given, Sampler)  # type: ignore[type-abstract]
    K = process.components
    if sampler.components is not None and K not in sampler.components:
        fitting = ", ".join(building.samplers_of_components(K)) or "none of the installed ones"
        raise UsageError(
            f"{lookup.describe('sampler', sampler).partition(':')[0]} does not run on {K} component"
            f"{'s' if K > 1 else ''}, which {type(process).__name__} has; samplers that do: {fitting}"
        )
    return sampler, spec


def default_sampler(process: Process) -> str:
    """Returns the sampler that stands in where neither the request nor the model's card names one.

    Raises:
        UsageError: where no installed sampler runs on the process.
    """
    for address in building.default_samplers():
        components = lookup.sampler(address).components
        if components is None or process.components in components:
            return address
    raise UsageError(
        f"no sampler that stands in by default runs on the {process.components} components of "
        f"{type(process).__name__}; give sampler="
    )


def _guidance(request: Request, model: Denoiser, cond: Mapping[str, Any]) -> tuple[Guidance, str | None]:
    """The guidance that was asked for, else the one that the model's card names for samples with a condition."""
    given = request.guidance
    if given is None and any(value is not None for value in cond.values()):
        given = model.usual_guidance
    if given is None or isinstance(given, Unguided):
        return Unguided(), None
    return _built("guidance", given, Guidance)  # type: ignore[type-abstract]


def _built(kind: str, given: Any, expected: type[T]) -> tuple[T, str]:
    component, spec = lookup.build(kind, given)
    if not isinstance(component, expected):
        raise UsageError(f"{spec} is not a {kind}; give a spec string or an instance of {expected.__name__}")
    return component, spec


def _checked_indices(request: Request, shape: tuple[int, ...]) -> Sequence[int]:
    """Returns the samples asked for; without n there are as many as states or images to start from."""
    n, latent, start = request.n, request.latent, request.start
    if latent is not None:
        _check_latent(latent, shape)
        n = len(latent)
    if start is not None and n == 1:
        n = len(start)
    wanted = _listed(n, request.indices)
    if latent is not None and len(latent) != len(wanted):
        raise UsageError(
            f"{len(latent)} states to start from were given for {len(wanted)} samples; give one a sample"
        )
    return wanted


def _check_latent(latent: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(latent, Tensor) or latent.shape[1:] != shape or not latent.is_floating_point():
        found = tuple(latent.shape) if isinstance(latent, Tensor) else type(latent).__name__
        raise UsageError(
            f"the states to start from are {found}; expected floating-point ones of shape {('n', *shape)}"
        )
    if not math.isfinite(float(latent.abs().max() if latent.numel() else 0.0)):
        raise UsageError("the states to start from hold values that are not finite; give finite ones")


def _checked_images(request: Request, model: Denoiser) -> Known | None:
    """Returns the region that is given, after checking that it and the images to start from fit the model."""
    shape = model.image_shape
    if request.start is not None:
        _check_one_component(model.process, "start=")
        checked_images("start", request.start, shape)
    if request.known is None or request.mask is None:
        return None
    region = known_region(checked_images("known", request.known, shape), request.mask, shape)
    _check_one_component(model.process, "inpainting")
    return region


def _check_one_component(process: Process, what: str) -> None:
    if process.components > 1:
        raise UsageError(f"{type(process).__name__} has {process.components} components; {what} needs one")


def _listed(n: int, indices: Sequence[int] | Tensor | None) -> Sequence[int]:
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


def _check_together(guidance: BoundGuidance, model: Denoiser) -> None:
    """Raises UsageError where a guidance brings a network that cannot be called together with the model."""
    for branch in guidance.branches:
        if branch.network is model:
            continue
        if _place(resolved_model(branch.network), None) != _place(model, None):
            raise UsageError(
                "the guidance's network differs from the model in device or dtype; move it with .to"
            )


def _noise(request: Request, process: Process, program: Program | None, times: Tensor) -> NoiseSource:
    if request.noise == "brownian":
        return brownian_noise(request.seed, process, program, times)
    return KeyedNoise(request.seed) if isinstance(request.noise, str | None) else request.noise


def _check_own_evaluations(guidance: BoundGuidance, model: Denoiser, times: Tensor) -> None:
    """Raises UsageError where a guidance evaluates by itself a network that is told more than conditions."""
    if (model.draws or model.takes_to) and any(guidance.own_evaluations(t) for t in times.tolist()):
        told = ", ".join([*model.draws, *(["to"] if model.takes_to else [])])
        raise UsageError(
            f"{type(guidance).__name__} evaluates the network by itself, under its conditions alone, and "
            f"{type(model).__name__} is told {told} too; use another guidance"
        )


def _check_batch(resolved: Resolved) -> None:
    """Refuses, before any work, a batch that does not fit in memory, and invalid conditions."""
    request, branches = resolved.request, len(resolved.guidance.branches)
    entries = DETERMINISTIC_BATCH if request.deterministic else min(request.batch_size, len(resolved.indices))
    check_memory(
        4 * entries * branches * math.prod(resolved.shape) * resolved.dtype.itemsize,
        f"batches of {entries} samples of shape {resolved.shape}",
        "give a smaller batch_size",
        resolved.device,
    )
    one = torch.zeros(1, dtype=torch.int64, device=resolved.device)
    resolved.guidance.targets(one, resolved.cond[0].example(resolved.device))


def _check_encoders(resolved: Resolved) -> None:
    """Warns where an encoder is not the one whose embeddings the model was trained with."""
    stated = (resolved.model.card or {}).get("provenance", {}).get("encoders", {})
    for name, found in resolved.sources.items() if stated else ():
        if found is not None and stated.get(name, found) != found:
            warnings.warn(
                f"{name}: the encoder is {found}, and the model was trained with {stated[name]}: samples may not be "
                "what is asked for; install the encoder that it was trained with",
                UserWarning,
                stacklevel=4,
            )


def _place(model: Denoiser, device: str | torch.device | None) -> tuple[torch.dtype | None, torch.device]:
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
    return lookup.build("process", model.process)[1]
