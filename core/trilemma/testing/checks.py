"""Runs the checks that a component's kind and declarations call for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trilemma import lookup
from trilemma.errors import PluginUnavailable, TrilemmaError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.registry import building, catalog
from trilemma.registry.spec import parse_spec
from trilemma.testing.denoisers import denoiser_checks
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.guidances import guidance_checks
from trilemma.testing.kernels import kernel_checks
from trilemma.testing.local import LOCAL
from trilemma.testing.outcome import Record, Skipped
from trilemma.testing.processes import process_checks
from trilemma.testing.samplers import sampler_checks

Check = tuple[str, Callable[[], str]]

_KINDS: dict[str, tuple[type | None, Callable[[Any], Iterator[Check]]]] = {
    "process": (Process, process_checks),
    "denoiser": (Denoiser, denoiser_checks),
    "sampler": (Sampler, sampler_checks),
    "guidance": (Guidance, guidance_checks),
    "kernel": (None, kernel_checks),
}


def checks(kind: str, spec: Any) -> Iterator[Check]:
    """Pairs of a name and a check of a component, given by its spec or as an object; none for a kind without any.

    A check returns what it found, and raises AssertionError where the component does not do what it must or declares.

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind in _KINDS:
        yield from _of(kind, _built(kind, spec))


def run_checks(kind: str, spec: Any, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """The record of every check of a component, given by its spec or as an object.

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
    records = [_record(kind, name, check, expected.pop(name, None)) for name, check in _of(kind, component)]
    unknown = [
        Record(kind, name, "failed", "expected to fail, and there is no such check") for name in expected
    ]
    return records + unknown


def check_sampler(sampler: Sampler | str, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """The record of every check of a sampler; see `run_checks`."""
    return run_checks("sampler", sampler, expected_failures)


def check_process(process: Process | str, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """The record of every check of a process; see `run_checks`."""
    return run_checks("process", process, expected_failures)


def check_denoiser(
    denoiser: Denoiser | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """The record of every check of a network; see `run_checks`."""
    return run_checks("denoiser", denoiser, expected_failures)


def check_guidance(
    guidance: Guidance | str, expected_failures: Mapping[str, str] | None = None
) -> list[Record]:
    """The record of every check of a guidance; see `run_checks`."""
    return run_checks("guidance", guidance, expected_failures)


def check_kernel_backend(backend: Any, expected_failures: Mapping[str, str] | None = None) -> list[Record]:
    """The record of every check of a kernel backend, by name or as an object with `operators`; see `run_checks`."""
    return run_checks("kernel", backend, expected_failures)


def check_plugin(name: str) -> list[Record]:
    """Whether a plugin loaded, and the record of every check of every component that it brings.

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
    """The records of a registered component; where it cannot be built, that is one."""
    try:
        return run_checks(kind, spec)
    except TrilemmaError as error:
        return [Record(kind, "can be built", "failed", str(error))]


def kind_of(component: Any) -> str:
    """The kind of an object that is a component; "" where it is none."""
    classes = {kind: interface for kind, (interface, _) in _KINDS.items() if interface is not None}
    return next((kind for kind, interface in classes.items() if isinstance(component, interface)), "")


def _built(kind: str, spec: Any) -> Any:
    if kind == "kernel" and isinstance(spec, str):
        return building.import_target(catalog().find(kind, spec))
    if kind == "denoiser" and isinstance(spec, str):
        return lookup.build(kind, spec, process=_fitting(spec), shape=(1, 28, 28))[0]
    return lookup.build(kind, spec)[0]


def _fitting(spec: str) -> Process:
    """A process that a network can be built on."""
    declared = getattr(
        building.import_target(catalog().find("denoiser", parse_spec(spec).name)), "components", None
    )
    return LOCAL[0] if declared is None or 1 in declared else PhaseProcess()


def _of(kind: str, component: Any) -> Iterator[Check]:
    interface, of_kind = _KINDS[kind]
    if interface is not None:
        yield f"is a {interface.__name__}", lambda: _derives(component, interface)
    if interface is None or isinstance(component, interface):
        yield from of_kind(component)


def _record(kind: str, name: str, check: Callable[[], str], expected: str | None) -> Record:
    try:
        found = check()
    except Skipped as skipped:
        return Record(kind, name, "skipped", str(skipped))
    except (AssertionError, TrilemmaError) as error:
        failure = str(error)
    except Exception as error:  # a plugin may raise anything
        failure = f"raised {type(error).__name__}: {error}"
    else:
        if expected is None:
            return Record(kind, name, "passed", found)
        return Record(kind, name, "xpass", f"passed ({found}), though expected to fail: {expected}")
    if expected is None:
        return Record(kind, name, "failed", failure)
    return Record(kind, name, "xfail", f"{expected}: {failure}")


def _derives(component: object, interface: type) -> str:
    name = f"{type(component).__module__}.{type(component).__qualname__}"
    assert isinstance(component, interface), f"{name} does not derive from trilemma.{interface.__name__}"
    return name
