"""Trilemma, a diffusion engine: fast sampling, mode coverage, sample quality.

    drawn = trilemma.sample("mnist", 64, sampler="ddim", steps=20, guidance="cfg:scale=2", cond={"class": 7})

Importing this package imports nothing heavy: every name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trilemma.version import __version__ as __version__

if TYPE_CHECKING:
    from trilemma.denoiser import Condition as Condition
    from trilemma.denoiser import Denoiser as Denoiser
    from trilemma.errors import TrilemmaError as TrilemmaError
    from trilemma.fusion import fuse as fuse
    from trilemma.fusion import unfuse as unfuse
    from trilemma.guidance import Guidance as Guidance
    from trilemma.inversion import invert as invert
    from trilemma.loading import load as load
    from trilemma.lookup import dataset as dataset
    from trilemma.lookup import denoiser as denoiser
    from trilemma.lookup import guidance as guidance
    from trilemma.lookup import metric as metric
    from trilemma.lookup import objective as objective
    from trilemma.lookup import process as process
    from trilemma.lookup import sampler as sampler
    from trilemma.objective import Objective as Objective
    from trilemma.process import Process as Process
    from trilemma.sampler import Sampler as Sampler
    from trilemma.sampling import Samples as Samples
    from trilemma.sampling import sample as sample
    from trilemma.sampling import sample_chunks as sample_chunks
    from trilemma.tableau import Row as Row
    from trilemma.tableau import Tableau as Tableau
    from trilemma.wrapping import wrap as wrap

_HOMES = {
    "Condition": "denoiser",
    "Denoiser": "denoiser",
    "Guidance": "guidance",
    "Objective": "objective",
    "Process": "process",
    "Row": "tableau",
    "Sampler": "sampler",
    "Samples": "sampling",
    "Tableau": "tableau",
    "TrilemmaError": "errors",
    "dataset": "lookup",
    "denoiser": "lookup",
    "fuse": "fusion",
    "guidance": "lookup",
    "invert": "inversion",
    "load": "loading",
    "metric": "lookup",
    "objective": "lookup",
    "process": "lookup",
    "sample": "sampling",
    "sample_chunks": "sampling",
    "sampler": "lookup",
    "unfuse": "fusion",
    "wrap": "wrapping",
}

__all__ = ["__version__", *_HOMES]


class _LookUp(ModuleType):
    """A module such as `trilemma.sampler` that answers calls too: `trilemma.sampler("ddim:eta=0")`."""

    def __call__(self, spec: str, /, **options: Any) -> Any:
        lookup = importlib.import_module("trilemma.lookup")
        return getattr(lookup, self.__name__.rpartition(".")[2])(spec, **options)


class _Package(ModuleType):
    """This package, whose look-ups share their names with the modules of the interfaces they build.

    Importing `trilemma.sampler`, the module, puts it where `trilemma.sampler`, the look-up, stood; made
    callable, it is both.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == "lookup":
            value.__class__ = _LookUp
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
