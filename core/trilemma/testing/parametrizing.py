"""Every check of some components as a test of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trilemma.errors import PluginUnavailable
from trilemma.registry import catalog
from trilemma.registry.spec import parse_spec
from trilemma.testing.checks import checks, kind_of


def generate_checks(components: Iterable[Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of an identifier, "component: check", and a check that raises AssertionError where it fails.

    Args:
        components: specs, objects, or pairs (kind, spec) where a name means components of several kinds.

    Raises:
        PluginUnavailable: for a name that is not registered.
    """
    for entry in components:
        for kind, component in _kinds(entry):
            label = component if isinstance(component, str) else type(component).__name__
            for name, check in checks(kind, component):
                yield f"{label}: {name}", check


def parametrize_with_checks(
    components: Iterable[Any], expected_failures: dict[str, str] | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """Returns a decorator that gives a pytest function with the argument `check` every check of some components.

        @parametrize_with_checks(["ddim", "ddim:grid=linspace"])
        def test_conformance(check):
            check()

    Args:
        components: as for `generate_checks`.
        expected_failures: reasons by the name of the check; one that passes in spite of it fails.
    """
    import pytest

    reasons = expected_failures or {}
    cases = []
    for label, check in generate_checks(components):
        reason = reasons.get(label.split(": ", 1)[1])
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason is not None else []
        cases.append(pytest.param(_skipping(check), id=label, marks=marks))
    decorator: Callable[[Callable[..., Any]], Any] = pytest.mark.parametrize("check", cases)
    return decorator


def _skipping(check: Callable[[], str]) -> Callable[[], str]:
    import pytest

    from trilemma.testing.outcome import Skipped

    def run() -> str:
        try:
            return check()
        except Skipped as skipped:
            pytest.skip(str(skipped))

    return run


def _kinds(entry: Any) -> list[tuple[str, Any]]:
    if isinstance(entry, tuple):
        return [entry]
    if not isinstance(entry, str):
        return [(kind_of(entry), entry)]
    found = catalog().search(parse_spec(entry).name)
    if not found:
        raise PluginUnavailable(f"unknown component {entry!r}; see trilemma plugins for those installed")
    return [(component.spec.kind, entry) for component in found]
