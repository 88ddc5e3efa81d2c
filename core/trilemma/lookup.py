"""Objects from spec strings, each typed by the interface it fills in."""

from __future__ import annotations

from typing import Any, cast

from trilemma.guiding.sums import composed
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.encoder import Encoder
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.registry import building
from trilemma.registry.building import condition as condition
from trilemma.registry.building import describe as describe
from trilemma.registry.spec import split_sum


def build(kind: str, spec: Any, /, **extra: Any) -> tuple[Any, str]:
    """Returns the object that a spec describes, and its canonical spec, as `trilemma.registry.building.build` does.

    A guidance may be a sum, "cfg:scale=3+interval:lo=0.2"; see `trilemma.guiding`.
    """
    if kind != "guidance" or not isinstance(spec, str) or len(terms := split_sum(spec)) == 1:
        return building.build(kind, spec, **extra)
    built = [building.build(kind, term, **extra) for term in terms]
    return composed([made for made, _ in built]), "+".join(text for _, text in built)


def process(spec: str, /, **options: Any) -> Process:
    """Returns the noising process of a spec such as "vp:schedule=cosine"; see `build`."""
    return cast(Process, build("process", spec, **options)[0])


def denoiser(spec: str, /, **options: Any) -> Denoiser:
    """Returns a freshly initialised network of a spec such as "unet"; process and shape are options; see `build`."""
    return cast(Denoiser, build("denoiser", spec, **options)[0])


def sampler(spec: str, /, **options: Any) -> Sampler:
    """Returns the sampler of a spec such as "ddim:eta=0,grid=trailing"; see `build`."""
    return cast(Sampler, build("sampler", spec, **options)[0])


def guidance(spec: str, /, **options: Any) -> Guidance:
    """Returns the guidance of a spec such as "cfg:scale=2" or "cfg:scale=3+interval:lo=0.2"; see `build`."""
    return cast(Guidance, build("guidance", spec, **options)[0])


def encoder(spec: str, /, **options: Any) -> Encoder:
    """Returns the encoder of a spec such as "minilm"; see `build`."""
    return cast(Encoder, build("encoder", spec, **options)[0])


def objective(spec: str, /, **options: Any) -> Objective:
    """Returns the training objective of a spec such as "simple:weighting=min-snr"; see `build`."""
    return cast(Objective, build("objective", spec, **options)[0])


def dataset(spec: str, /, **options: Any) -> Any:
    """Returns the data set of a spec such as "mnist:split=test"; see `build`."""
    return build("dataset", spec, **options)[0]


def metric(spec: str, /, **options: Any) -> Any:
    """Returns the metric or feature network of a spec such as "frechet"; see `build`."""
    return build("metric", spec, **options)[0]
