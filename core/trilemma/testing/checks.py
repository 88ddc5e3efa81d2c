"""Runs the checks that a component's kind and declarations call for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trilemma import lookup
from trilemma.errors import DataError, PluginUnavailable, TrilemmaError, UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.encoder import Encoder
from trilemma.interfaces.features import Features
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.metric import FeatureNetwork, Metric, ModelMetric, PairMetric
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.registry import building, catalog
from trilemma.registry.spec import parse_spec
from trilemma.testing.autoencoders import autoencoder_checks
from trilemma.testing.classifiers import classifier_checks
from trilemma.testing.datasets import dataset_checks
from trilemma.testing.denoisers import denoiser_checks
from trilemma.testing.encoders import encoder_checks
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.features import features_checks
from trilemma.testing.guidances import guidance_checks
from trilemma.testing.kernels import kernel_checks
from trilemma.testing.local import LOCAL
from trilemma.testing.metrics import SHAPES, metric_checks
from trilemma.testing.objectives import objective_checks
from trilemma.testing.outcome import Record, Skipped
from trilemma.testing.processes import process_checks
from trilemma.testing.samplers import sampler_checks

Check = tuple[str, Callable[[], str]]

# By kind: the classes that a component must be an instance of (none for any), and its checks.
_KINDS: dict[str, tuple[tuple[type, ...], Callable[..., Iterator[Check]]]] = {
    "process": ((Process,), process_checks),
    "denoiser": ((Denoiser,), denoiser_checks),
    "autoencoder": ((Autoencoder,), autoencoder_checks),
    "classifier": ((Classifier,), classifier_checks),
    "features": ((Features,), features_checks),
    "sampler": ((Sampler,), sampler_checks),
    "guidance": ((Guidance,), guidance_checks),
    "encoder": ((Encoder,), encoder_checks),
    "objective": ((Objective,), objective_checks),
    "metric": ((Metric, ModelMetric, PairMetric, FeatureNetwork), metric_checks),
    "dataset": ((Dataset,), dataset_checks),
    "kernel": ((), kernel_checks),
}


def checks(kind: str, spec: Any) -> Iterator[Check]:
    """Yields pairs of a name and a check of a component: a spec, an object or, for a data set, a class to build.

    There are none for an unknown kind.

    A check returns its finding in words, and raises AssertionError where the component breaks a rule or a declaration.

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind in _KINDS:
        yield from _of(kind, _built(kind, spec), spec)


def run_checks(kind: str, spec: Any, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of a component, given as for `checks`, and returns their record.

    Args:
        expected_failures: reasons by the name of the check, added to the component's own `expected_failures`, if it
            has that attribute. A check that passes in spite of one is a failure: "xpass".

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind not in _KINDS:
        return [Record(kind, "conformance", "skipped", f"there are no checks for a {kind} yet")]
    component = _built(kind, spec)
    expected = {**getattr(component, "expected_failures", {}), **(expected_failures or {})}
    records = [
        _record(kind, name, check, expected.pop(name, None)) for name, check in _of(kind, component, spec)
    ]
    unknown = [
        Record(kind, name, "failed", "expected to fail, and there is no such check") for name in expected
    ]
    return records + unknown


def check_sampler(sampler: Sampler | str, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of a sampler and returns its record; see `run_checks`."""
    return run_checks("sampler", sampler, expected_failures)


def check_process(process: Process | str, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of a process and returns its record; see `run_checks`."""
    return run_checks("process", process, expected_failures)


def check_denoiser(
    denoiser: Denoiser | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a network and returns its record; see `run_checks`."""
    return run_checks("denoiser", denoiser, expected_failures)


def check_autoencoder(
    autoencoder: Autoencoder | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of an autoencoder and returns its record; see `run_checks`."""
    return run_checks("autoencoder", autoencoder, expected_failures)


def check_classifier(
    classifier: Classifier | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a classifier and returns its record; see `run_checks`."""
    return run_checks("classifier", classifier, expected_failures)


def check_features(
    features: Features | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a network of features and returns its record; see `run_checks`."""
    return run_checks("features", features, expected_failures)


def check_guidance(
    guidance: Guidance | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a guidance and returns its record; see `run_checks`."""
    return run_checks("guidance", guidance, expected_failures)


def check_encoder(encoder: Encoder | str, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of an encoder of texts and returns its record; see `run_checks`."""
    return run_checks("encoder", encoder, expected_failures)


def check_objective(
    objective: Objective | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a training objective and returns its record; see `run_checks`."""
    return run_checks("objective", objective, expected_failures)


def check_metric(metric: Any, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of a metric, of samples or of a model, or a feature network; see `run_checks`."""
    return run_checks("metric", metric, expected_failures)


def check_dataset(
    dataset: Dataset | type[Dataset] | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """Runs every check of a data set; the splits of a data set given as an object are not known. See `run_checks`."""
    return run_checks("dataset", dataset, expected_failures)


def check_kernel_backend(backend: Any, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """Runs every check of a kernel backend, by name or as an object with `operators`; see `run_checks`."""
    return run_checks("kernel", backend, expected_failures)


def check_plugin(name: str) -> list[Record]:
    """Returns whether a plugin loaded, and the record of every check of every component that it brings.

    Args:
        name: of its entry point or distribution.

    Raises:
        PluginUnavailable: where no plugin has this name.
    """
    found = [
        record for record in catalog().records if name in (record.name, record.distribution, record.address)
    ]
    if not found:
        raise PluginUnavailable(f"unknown plugin {name!r}; see trilemma plugins for those installed")
    records = []
    for plugin in found:
        loaded = plugin.status == "ok"
        records.append(
            Record("plugin", "loads", "passed" if loaded else "failed", plugin.reason or plugin.address)
        )
        for component in catalog().components():
            if component.plugin is plugin:
                records += run_component(component.spec.kind, component.address)
    return records


def run_component(kind: str, spec: str) -> list[Record]:
    """Returns the records of a registered component; a single record where it cannot be built."""
    try:
        if why := _why_unbuilt(kind, spec):
            return [Record(kind, "can be built", "skipped", why)]
        return run_checks(kind, spec)
    except DataError as error:
        return [Record(kind, "can be built", "skipped", f"its data are not here: {error}")]
    except TrilemmaError as error:
        return [Record(kind, "can be built", "failed", str(error))]


def _why_unbuilt(kind: str, spec: str) -> str:
    """Returns why a data set cannot be built by its bare name: it needs to be told something; "" for any other."""
    if kind != "dataset":
        return ""
    parsed = parse_spec(spec)
    given = inspect.signature(building.import_target(catalog().find(kind, parsed.name))).parameters.values()
    needed = [
        parameter.name
        for parameter in given
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in parsed.options
    ]
    return f"it needs {', '.join(needed)}; check a spec such as {parsed.name}:{needed[0]}=…" if needed else ""


def kind_of(component: Any) -> str:
    """Returns the kind of a component given as an object; "" where it is none."""
    return next((kind for kind, (classes, _) in _KINDS.items() if isinstance(component, classes)), "")


def _built(kind: str, spec: Any) -> Any:
    if kind == "kernel" and isinstance(spec, str):
        return building.import_target(catalog().find(kind, spec))
    if kind == "denoiser" and isinstance(spec, str):
        return lookup.build(kind, spec, process=_fitting(spec), shape=(1, 28, 28))[0]
    if kind in _OF_IMAGES and isinstance(spec, str):
        return _of_images(kind, spec)
    if kind == "dataset" and isinstance(spec, type):
        return spec()
    return lookup.build(kind, spec)[0]


# Arguments of networks of images beside the shape, by kind.
_OF_IMAGES: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "classifier": {"classes": tuple("0123456789"), "process": LOCAL[0]},
    "features": {"classes": tuple("0123456789")},
}


def _of_images(kind: str, spec: str) -> Any:
    """A network for the first of some shapes that it takes."""
    refusals: list[UsageError] = []
    for shape in SHAPES:
        try:
            return lookup.build(kind, spec, shape=shape, **_OF_IMAGES[kind])[0]
        except UsageError as error:
            refusals.append(error)
    raise refusals[0]


def _fitting(spec: str) -> Process:
    """A process that a network can be built on."""
    declared = getattr(
        building.import_target(catalog().find("denoiser", parse_spec(spec).name)), "components", None
    )
    return LOCAL[0] if declared is None or 1 in declared else PhaseProcess()


def _of(kind: str, component: Any, spec: Any) -> Iterator[Check]:
    classes, of_kind = _KINDS[kind]
    if classes:
        names = " or ".join(entry.__name__ for entry in classes)
        yield f"is a {names}", lambda: _derives(component, classes, names)
    if classes and not isinstance(component, classes):
        return
    yield from of_kind(component, _again(spec)) if kind == "dataset" else of_kind(component)


def _again(spec: Any) -> Callable[..., Dataset] | None:
    """Builds a data set once more, with options on top; None for one that was given as an object."""
    if isinstance(spec, str):
        return lambda **options: lookup.build("dataset", spec, **options)[0]
    return spec if isinstance(spec, type) else None


def _record(kind: str, name: str, check: Callable[[], str], expected: str | None) -> Record:
    try:
        found = check()
    except Skipped as skipped:
        return Record(kind, name, "skipped", str(skipped))
    except (AssertionError, TrilemmaError) as error:
        failure = str(error)
    except Exception as error:
        # A plugin may raise anything.
        failure = f"raised {type(error).__name__}: {error}"
    else:
        if expected is None:
            return Record(kind, name, "passed", found)
        return Record(kind, name, "xpass", f"passed ({found}), though expected to fail: {expected}")
    if expected is None:
        return Record(kind, name, "failed", failure)
    return Record(kind, name, "xfail", f"{expected}: {failure}")


def _derives(component: object, classes: tuple[type, ...], names: str) -> str:
    name = f"{type(component).__module__}.{type(component).__qualname__}"
    assert isinstance(component, classes), f"{name} does not derive from trilemma.{names}"
    return name
