"""Runs the checks that a component's kind and declarations call for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from trilemma import lookup
from trilemma.errors import TrilemmaError
from trilemma.guidance import Guidance
from trilemma.process import Process
from trilemma.sampler import Sampler
from trilemma.testing.guidances import guidance_checks
from trilemma.testing.processes import process_checks
from trilemma.testing.result import Result
from trilemma.testing.samplers import sampler_checks

Check = tuple[str, Callable[[], str]]

_KINDS: dict[str, tuple[type, Callable[[Any], Iterator[Check]]]] = {
    "process": (Process, process_checks),
    "sampler": (Sampler, sampler_checks),
    "guidance": (Guidance, guidance_checks),
}


def checks(kind: str, spec: Any) -> Iterator[Check]:
    """Pairs of a name and a check of a component, given by its spec or as an object; none for a kind without any.

    A check returns what it found, and raises AssertionError where the component does not do what it must or declares.

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind not in _KINDS:
        return
    interface, of_kind = _KINDS[kind]
    component, _ = lookup.build(kind, spec)
    yield f"is a {interface.__name__}", lambda: _derives(component, interface)
    if isinstance(component, interface):
        yield from of_kind(component)


def run_checks(kind: str, spec: Any) -> list[Result]:
    """The result of every check of a component, given by its spec or as an object.

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind not in _KINDS:
        return [Result(kind, "conformance", "skipped", f"there are no checks for a {kind} yet")]
    return [_result(kind, name, check) for name, check in checks(kind, spec)]


def _result(kind: str, name: str, check: Callable[[], str]) -> Result:
    try:
        return Result(kind, name, "passed", check())
    except (AssertionError, TrilemmaError) as error:
        return Result(kind, name, "failed", str(error))
    except Exception as error:  # a plugin may raise anything
        return Result(kind, name, "failed", f"raised {type(error).__name__}: {error}")


def _derives(component: object, interface: type) -> str:
    name = f"{type(component).__module__}.{type(component).__qualname__}"
    assert isinstance(component, interface), f"{name} does not derive from trilemma.{interface.__name__}"
    return name


def check_sampler(sampler: Sampler | str) -> None:
    """Raises AssertionError with every check that a sampler fails; for a plugin's own tests."""
    failed = [result for result in run_checks("sampler", sampler) if result.failed]
    assert not failed, "; ".join(f"{result.check}: {result.detail}" for result in failed)
