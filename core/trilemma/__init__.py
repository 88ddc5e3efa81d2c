"""Trilemma, a diffusion engine: fast sampling, mode coverage, sample quality.

    drawn = trilemma.sample("mnist", 64, sampler="ddim", steps=20, guidance="cfg:scale=2", cond={"class": 7})

Importing this package imports nothing heavy: every name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trilemma.version import __version__ as __version__

if TYPE_CHECKING:
    from trilemma.engine.autoencode import autoencode as autoencode
    from trilemma.engine.drawing import sample as sample
    from trilemma.engine.drawing import sample_chunks as sample_chunks
    from trilemma.engine.energy import energy as energy
    from trilemma.engine.inversion import Inverted as Inverted
    from trilemma.engine.inversion import invert as invert
    from trilemma.engine.noise import InjectedNoise as InjectedNoise
    from trilemma.engine.noise import KeyedNoise as KeyedNoise
    from trilemma.engine.request import Request as Request
    from trilemma.engine.sampling import Samples as Samples
    from trilemma.engine.stepping import stepper as stepper
    from trilemma.errors import TrilemmaError as TrilemmaError
    from trilemma.errors import UsageError as UsageError
    from trilemma.guiding.modifiers import Factor as Factor
    from trilemma.guiding.modifiers import Modified as Modified
    from trilemma.guiding.modifiers import Modifier as Modifier
    from trilemma.guiding.sums import Sum as Sum
    from trilemma.interfaces.autoencoder import Autoencoder as Autoencoder
    from trilemma.interfaces.classifier import Classifier as Classifier
    from trilemma.interfaces.condition import ClassCondition as ClassCondition
    from trilemma.interfaces.condition import Condition as Condition
    from trilemma.interfaces.condition import ImageCondition as ImageCondition
    from trilemma.interfaces.condition import ScalarCondition as ScalarCondition
    from trilemma.interfaces.condition import TextCondition as TextCondition
    from trilemma.interfaces.condition import conditions_from as conditions_from
    from trilemma.interfaces.dataset import InMemoryDataset as InMemoryDataset
    from trilemma.interfaces.denoiser import Denoiser as Denoiser
    from trilemma.interfaces.denoiser import gradient_of as gradient_of
    from trilemma.interfaces.encoder import Encoder as Encoder
    from trilemma.interfaces.features import Features as Features
    from trilemma.interfaces.guidance import BoundGuidance as BoundGuidance
    from trilemma.interfaces.guidance import Branch as Branch
    from trilemma.interfaces.guidance import FromNull as FromNull
    from trilemma.interfaces.guidance import Guidance as Guidance
    from trilemma.interfaces.guidance import Weighted as Weighted
    from trilemma.interfaces.metric import Metric as Metric
    from trilemma.interfaces.metric import Observation as Observation
    from trilemma.interfaces.objective import Objective as Objective
    from trilemma.interfaces.prediction import Prediction as Prediction
    from trilemma.interfaces.process import Process as Process
    from trilemma.interfaces.sampler import Sampler as Sampler
    from trilemma.interfaces.spacing import Grid as Grid
    from trilemma.interfaces.tableau import Row as Row
    from trilemma.interfaces.tableau import Tableau as Tableau
    from trilemma.interfaces.update import Step as Step
    from trilemma.interfaces.update import Update as Update
    from trilemma.lookup import dataset as dataset
    from trilemma.lookup import denoiser as denoiser
    from trilemma.lookup import encoder as encoder
    from trilemma.lookup import guidance as guidance
    from trilemma.lookup import metric as metric
    from trilemma.lookup import objective as objective
    from trilemma.lookup import process as process
    from trilemma.lookup import sampler as sampler
    from trilemma.models.cascade import Cascade as Cascade
    from trilemma.models.cascade import Stage as Stage
    from trilemma.models.fusion import fuse as fuse
    from trilemma.models.fusion import unfuse as unfuse
    from trilemma.models.loading import load as load
    from trilemma.models.wrapping import wrap as wrap
    from trilemma.registry import AutoencoderSpec as AutoencoderSpec
    from trilemma.registry import ClassifierSpec as ClassifierSpec
    from trilemma.registry import CommandSpec as CommandSpec
    from trilemma.registry import DatasetSpec as DatasetSpec
    from trilemma.registry import DenoiserSpec as DenoiserSpec
    from trilemma.registry import EncoderSpec as EncoderSpec
    from trilemma.registry import FeaturesSpec as FeaturesSpec
    from trilemma.registry import GuidanceSpec as GuidanceSpec
    from trilemma.registry import KernelSpec as KernelSpec
    from trilemma.registry import MetricSpec as MetricSpec
    from trilemma.registry import ModelSpec as ModelSpec
    from trilemma.registry import ObjectiveSpec as ObjectiveSpec
    from trilemma.registry import ProcessSpec as ProcessSpec
    from trilemma.registry import Registry as Registry
    from trilemma.registry import SamplerSpec as SamplerSpec
    from trilemma.registry import hookimpl as hookimpl

_HOMES = {
    "Autoencoder": "interfaces.autoencoder",
    "AutoencoderSpec": "registry",
    "Cascade": "models.cascade",
    "Classifier": "interfaces.classifier",
    "ClassifierSpec": "registry",
    "Features": "interfaces.features",
    "FeaturesSpec": "registry",
    "CommandSpec": "registry",
    "BoundGuidance": "interfaces.guidance",
    "Branch": "interfaces.guidance",
    "ClassCondition": "interfaces.condition",
    "Condition": "interfaces.condition",
    "ImageCondition": "interfaces.condition",
    "ScalarCondition": "interfaces.condition",
    "TextCondition": "interfaces.condition",
    "conditions_from": "interfaces.condition",
    "DatasetSpec": "registry",
    "Denoiser": "interfaces.denoiser",
    "DenoiserSpec": "registry",
    "Encoder": "interfaces.encoder",
    "EncoderSpec": "registry",
    "Factor": "guiding.modifiers",
    "FromNull": "interfaces.guidance",
    "Grid": "interfaces.spacing",
    "Guidance": "interfaces.guidance",
    "GuidanceSpec": "registry",
    "InMemoryDataset": "interfaces.dataset",
    "InjectedNoise": "engine.noise",
    "Inverted": "engine.inversion",
    "KernelSpec": "registry",
    "KeyedNoise": "engine.noise",
    "Metric": "interfaces.metric",
    "MetricSpec": "registry",
    "Modified": "guiding.modifiers",
    "ModelSpec": "registry",
    "Modifier": "guiding.modifiers",
    "Objective": "interfaces.objective",
    "ObjectiveSpec": "registry",
    "Observation": "interfaces.metric",
    "Prediction": "interfaces.prediction",
    "Process": "interfaces.process",
    "ProcessSpec": "registry",
    "Registry": "registry",
    "Row": "interfaces.tableau",
    "Sampler": "interfaces.sampler",
    "SamplerSpec": "registry",
    "Samples": "engine.sampling",
    "Step": "interfaces.update",
    "Stage": "models.cascade",
    "Sum": "guiding.sums",
    "Tableau": "interfaces.tableau",
    "Request": "engine.request",
    "TrilemmaError": "errors",
    "Update": "interfaces.update",
    "UsageError": "errors",
    "Weighted": "interfaces.guidance",
    "autoencode": "engine.autoencode",
    "dataset": "lookup",
    "denoiser": "lookup",
    "encoder": "lookup",
    "energy": "engine.energy",
    "fuse": "models.fusion",
    "gradient_of": "interfaces.denoiser",
    "guidance": "lookup",
    "hookimpl": "registry",
    "invert": "engine.inversion",
    "load": "models.loading",
    "metric": "lookup",
    "objective": "lookup",
    "process": "lookup",
    "sample": "engine.drawing",
    "sample_chunks": "engine.drawing",
    "stepper": "engine.stepping",
    "sampler": "lookup",
    "unfuse": "models.fusion",
    "wrap": "models.wrapping",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
