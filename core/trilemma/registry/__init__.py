"""The plugin system.

A plugin is an entry point of the group "trilemma" that names a light module:

    from trilemma.registry import SamplerSpec, hookimpl

    @hookimpl
    def trilemma_register(registry):
        registry.sampler(SamplerSpec(name="heun", target="my_package.heun:Heun", summary="Heun's method"))
"""

from trilemma.registry.catalog import Catalog, Component
from trilemma.registry.hooks import API_VERSION, hookimpl
from trilemma.registry.manager import catalog, exclude, loaded
from trilemma.registry.plugin_record import PluginRecord
from trilemma.registry.registry import Registry
from trilemma.registry.specs import (
    KINDS,
    AutoencoderSpec,
    ClassifierSpec,
    CommandSpec,
    ComponentSpec,
    DatasetSpec,
    DenoiserSpec,
    EncoderSpec,
    FeaturesSpec,
    GuidanceSpec,
    KernelSpec,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    ProcessSpec,
    SamplerSpec,
)

__all__ = [
    "API_VERSION",
    "KINDS",
    "AutoencoderSpec",
    "Catalog",
    "ClassifierSpec",
    "CommandSpec",
    "Component",
    "ComponentSpec",
    "DatasetSpec",
    "DenoiserSpec",
    "EncoderSpec",
    "FeaturesSpec",
    "GuidanceSpec",
    "KernelSpec",
    "MetricSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "PluginRecord",
    "ProcessSpec",
    "Registry",
    "SamplerSpec",
    "catalog",
    "exclude",
    "hookimpl",
    "loaded",
]
