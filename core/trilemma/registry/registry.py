"""The registry that a plugin's hook writes to: a staging area of its own, committed whole or not at all."""

from __future__ import annotations

from trilemma.registry.specs import (
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


class Registry:
    """Collects the components of one plugin. Each method takes the spec of its kind and nothing else.

    Raises:
        TypeError: for anything but that spec.
        ValueError: for a name that this plugin has registered before.
    """

    def __init__(self) -> None:
        self._staged: dict[tuple[str, str], ComponentSpec] = {}

    @property
    def staged(self) -> tuple[ComponentSpec, ...]:
        """Returns the registered components, in order."""
        return tuple(self._staged.values())

    def process(self, spec: ProcessSpec) -> None:
        """Registers a noising process."""
        self._stage(spec, ProcessSpec)

    def denoiser(self, spec: DenoiserSpec) -> None:
        """Registers a network."""
        self._stage(spec, DenoiserSpec)

    def autoencoder(self, spec: AutoencoderSpec) -> None:
        """Registers a network that makes codes of images."""
        self._stage(spec, AutoencoderSpec)

    def classifier(self, spec: ClassifierSpec) -> None:
        """Registers a network that names classes."""
        self._stage(spec, ClassifierSpec)

    def features(self, spec: FeaturesSpec) -> None:
        """Registers a network whose activations compare images."""
        self._stage(spec, FeaturesSpec)

    def sampler(self, spec: SamplerSpec) -> None:
        """Registers a sampler."""
        self._stage(spec, SamplerSpec)

    def guidance(self, spec: GuidanceSpec) -> None:
        """Registers a guidance."""
        self._stage(spec, GuidanceSpec)

    def encoder(self, spec: EncoderSpec) -> None:
        """Registers an encoder of texts."""
        self._stage(spec, EncoderSpec)

    def objective(self, spec: ObjectiveSpec) -> None:
        """Registers a training objective."""
        self._stage(spec, ObjectiveSpec)

    def dataset(self, spec: DatasetSpec) -> None:
        """Registers a data set."""
        self._stage(spec, DatasetSpec)

    def metric(self, spec: MetricSpec) -> None:
        """Registers a metric or a feature network."""
        self._stage(spec, MetricSpec)

    def kernel(self, spec: KernelSpec) -> None:
        """Registers a backend of native kernels."""
        self._stage(spec, KernelSpec)

    def command(self, spec: CommandSpec) -> None:
        """Registers a subcommand of the command line."""
        self._stage(spec, CommandSpec)

    def model(self, spec: ModelSpec) -> None:
        """Registers a trained model that ships in a package."""
        self._stage(spec, ModelSpec)

    def _stage(self, spec: ComponentSpec, expected: type[ComponentSpec]) -> None:
        if type(spec) is not expected:
            raise TypeError(
                f"registry.{expected.kind}() takes a {expected.__name__}, got {type(spec).__name__}"
            )
        key = (spec.kind, spec.name)
        if key in self._staged:
            raise ValueError(f"{spec.kind} {spec.name!r} is registered twice")
        self._staged[key] = spec
