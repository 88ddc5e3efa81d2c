"""Requests to the engine: every option once, with its default, its meaning and its checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from trilemma.checks import checked_integer, checked_number
from trilemma.engine.noise import NoiseSource
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.sampler import Sampler
from trilemma.models.cascade import Cascade

# Called after each row with (rows done, rows, time the state is now at, state [B, ...]).
Callback: TypeAlias = Callable[[int, int, float, Tensor], None]

# Options that each stage of a cascade has for itself.
OF_STAGES = ("sampler", "steps", "guidance", "cond")
# Options of the images that a stage is told.
OF_TOLD_IMAGES = ("noise", "truncated")

NOISES = ("keyed", "brownian")
CAPTURES = ("auto", "loop", "step", "off")


@dataclass(frozen=True)
class Common:
    """Options of everything that runs a sampler on a model.

    Args:
        model: a denoiser or a cascade, or the name or directory of one for `trilemma.load`.
        sampler: a sampler or its spec, such as "ddim:eta=0,grid=trailing"; by default the one that the model's card
            names, else one that fits its process.
        steps: number of steps, at most T for a discrete process; by default that of the model's card, else 50.
        guidance: a guidance or its spec, such as "cfg:scale=2", where a scale of 1 is none; by default, where a
            condition is given, the one that the model's card names, else the model's own prediction.
        cond: conditions by name: one value for all samples, or a list of which sample i takes entry i modulo its
            length. A class is a label or a name. None is the null condition.
        indices: which samples to draw, in place of the first n; a sample does not depend on which others are drawn.
        device: where a model given by name goes; a denoiser stays where it is.
        dtype: dtype of the state; that of the model by default.
    """

    model: Denoiser | Cascade | str | Path
    _: KW_ONLY
    sampler: Sampler | str | None = None
    steps: int | None = None
    guidance: Guidance | str | None = None
    cond: Mapping[str, Any] | None = None
    indices: Sequence[int] | Tensor | None = None
    device: str | torch.device | None = None
    dtype: torch.dtype | str | None = None

    def __post_init__(self) -> None:
        found = getattr(torch, self.dtype, None) if isinstance(self.dtype, str) else self.dtype
        if found is None and self.dtype is None:
            return
        if not (isinstance(found, torch.dtype) and found.is_floating_point):
            raise UsageError(
                f"dtype={self.dtype!r} is no floating-point dtype; give float32, bfloat16, float16 or float64"
            )
        object.__setattr__(self, "dtype", found)


@dataclass(frozen=True)
class Batching(Common):
    """Options of runs that go batch by batch.

    Args:
        batch_size: largest number of samples in one call of the network; a guided call has as many for each branch.
        deterministic: always call the network with 64 samples, sample i in row i mod 64, so that the finished samples
            too are the same bits in any chunking; `batch_size` is then ignored.
        callback: called after each row of the sampler with (rows done, rows, time, state [B, ...]), with gradients as
            at the call. The states of a latent model are codes. The state is a view that the next row overwrites: clone
            it to keep it. A clone is an ordinary tensor.
        progress: show a progress bar on stderr.
    """

    _: KW_ONLY
    batch_size: int = 64
    deterministic: bool = False
    callback: Callback | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        batch = checked_integer(self.batch_size, "batch_size", 1, what="is not a number of samples")
        object.__setattr__(self, "batch_size", batch)

    def shared(self) -> dict[str, Any]:
        """Returns the options of this class by name, the model's left out, for another request like this one."""
        return {field.name: getattr(self, field.name) for field in fields(Batching) if field.name != "model"}


@dataclass(frozen=True)
class Drawing(Common):
    """Options of drawing samples.

    Args:
        n: number of samples.
        seed: 0 to 2^64 − 1; with a sample's index it decides all its noise.
        latent: states [n, K·C, H, W] to start from, as `invert` returns them; the prior by default.
        start: images [N, C, H, W] to start from, noised up to the time `strength`; sample i takes entry i modulo N, and
            only the steps below that time are run. n = 1 stands for N samples.
        strength: time in (0, 1] that `start` is noised to; 0.6 by default.
        known: images [N, C, H, W] of which a region is kept, sample i taking entry i modulo N: after every row that
            region becomes α_t x + σ_t ξ of them, and the images themselves at the end, with one ξ for a sample. The
            rest depends on the region through the network alone, so its law is not that of the data given the region,
            whatever the number of steps. For example, of two pixels with variance 1 and correlation 0.8, of which one
            is kept at 1, the other has the mean 0.35 instead of 0.8. `resample` and the guidance `moment-matching` mend
            that. Of a latent model the code of `known` is kept at those places whose pixels are all kept, and the kept
            pixels are put into the decoded image.
        mask: [M, 1 or C, H, W] of 0 and 1, 1 where `known` is kept; sample i takes entry i modulo M.
        resample: passes that every `jump` steps take, with the noise put back in between (2201.09865). It costs as many
            times the evaluations, and needs a sampler of one step a row.
        jump: steps that `resample` repeats in one go.
        noise: where the rows' noise is taken from: "keyed" by the seed and the row, or "brownian" by the seed and time,
            one path whatever the number of steps, see `trilemma.engine.brownian`. A source injects another library's.
    """

    n: int = 1
    _: KW_ONLY
    seed: int = 0
    latent: Tensor | None = None
    start: Tensor | None = None
    strength: float | None = None
    known: Tensor | None = None
    mask: Tensor | None = None
    resample: int = 1
    jump: int = 1
    noise: NoiseSource | str | None = "keyed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise is None:
            object.__setattr__(self, "noise", "keyed")
        if isinstance(self.noise, str):
            if self.noise not in NOISES:
                raise UsageError(
                    f"unknown noise {self.noise!r}; choose from {', '.join(NOISES)}, or give a source"
                )
            seed = checked_integer(self.seed, "seed", 0, 2**64 - 1, what="is not a seed")
            object.__setattr__(self, "seed", seed)
        for name in ("resample", "jump"):
            checked_integer(getattr(self, name), name, 1, what="is no count")
        if (self.known is None) != (self.mask is None):
            missing = "known" if self.known is None else "mask"
            raise UsageError(
                f"{missing}= is missing; give known=, the images, and mask=, 1 where they are kept"
            )
        if self.resample > 1 and self.known is None:
            raise UsageError(
                f"resample={self.resample!r} repeats steps of inpainting; give known= and mask= too"
            )
        if self.start is None:
            if self.strength is not None:
                raise UsageError(f"strength={self.strength!r} says how far start= is noised; give start= too")
            return
        if self.latent is not None:
            raise UsageError("latent= and start= both say where to begin; give one of them")
        strength = 0.6 if self.strength is None else self.strength
        checked = checked_number(strength, "strength", 0, 1, what="is no time to noise to", above=True)
        object.__setattr__(self, "strength", checked)


@dataclass(frozen=True)
class Request(Drawing, Batching):
    """All that decides a set of samples, and how they are drawn.

    Args:
        capture: CUDA graphs of the loop: "step" replays a graph of one row, "loop" a graph of all rows, which no
            callback and no progress bar can follow; "auto" takes the one that fits, "off" none. A loop that cannot be
            captured is launched row by row, with the same result; the provenance says which capture ran, and why no
            other.
        stages: of a cascade, options of single stages by their number from 1, such as {2: {"steps": 10}}: sampler,
            steps, guidance, cond, noise and truncated. The other options of a stage are those of the cascade's card;
            those that are not a stage's own go for all, `callback`, `progress` and `trajectory` for the last.
        all_stages: of a cascade, also keep the images of the stages before the last. The command line writes them to
            FILE.stage-1.png, or into stage-1/ of a folder.
        trajectory: also keep the state before the first row and after each, codes for a latent model; a graph of all
            rows cannot do that.
    """

    _: KW_ONLY
    capture: str = "auto"
    stages: Mapping[int, Mapping[str, Any]] | None = None
    all_stages: bool = False
    trajectory: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capture not in CAPTURES:
            raise UsageError(f"unknown capture {self.capture!r}; choose from {', '.join(CAPTURES)}")
        for number, options in (self.stages or {}).items():
            checked_integer(number, "stages", 1, what="is no number of a stage")
            for name in options:
                if name not in (known := (*OF_STAGES, *OF_TOLD_IMAGES)):
                    raise UsageError(
                        f"stages: stage {number} has no option {name!r}; its own are {', '.join(known)}"
                    )

    @property
    def watched(self) -> bool:
        """True where the host follows the rows one by one."""
        return self.progress or self.trajectory or self.callback is not None


@dataclass(frozen=True)
class InversionRequest(Batching):
    """All that decides an inversion.

    Args:
        x: images [n, C, H, W] in the range of the model's data.
        sampler: a deterministic sampler, one that fits the process by default; the way back must use the same one.
        steps: of the sampler; the way back must use as many.
        refine: largest number of rounds a step, each of 2 to 17 evaluations of the network; they end as soon as all
            images of a batch have converged. After each round the host reads one value. 0 is plain DDIM inversion: one
            evaluation a step, nothing is solved, and the error falls with the length of the steps.
        tolerance: of max |A z + B f(z, t) − z'|, relative to max |z'| where that is above 1; ε^0.7 by default, with ε
            the rounding of the state or of the network: 1e-11 in float64, 1.4e-5 in float32.
    """

    x: Tensor
    _: KW_ONLY
    refine: int = 20
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refine = checked_integer(self.refine, "refine", 0, what="is not a number of rounds")
        object.__setattr__(self, "refine", refine)
        number, bound = (
            isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool),
            self.tolerance,
        )
        if bound is not None and not (number and 0 < bound < math.inf):
            raise UsageError(f"tolerance={bound!r} is not a bound of the residual; give a positive number")
