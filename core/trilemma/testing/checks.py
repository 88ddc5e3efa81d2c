"""Runs the checks that a component's kind and declarations call for."""

from __future__ import annotations

from typing import Any

from trilemma import lookup
from trilemma.errors import TrilemmaError
from trilemma.sampler import Sampler
from trilemma.testing.result import Result
from trilemma.testing.samplers import sampler_checks


def run_checks(kind: str, spec: Any) -> list[Result]:
    """The results of every check of a component, given by its spec or as an object.

    Raises:
        TrilemmaError: where the component cannot be built.
    """
    if kind != "sampler":
        return [Result(kind, "conformance", "skipped", f"there are no checks for a {kind} yet")]
    sampler, _ = lookup.build(kind, spec)
    if not isinstance(sampler, Sampler):
        return [
            Result(
                kind,
                "is a Sampler",
                "failed",
                f"{type(sampler).__name__} does not derive from trilemma.Sampler",
            )
        ]
    results = []
    for name, check in sampler_checks(sampler):
        try:
            results.append(Result(kind, name, "passed", check()))
        except AssertionError as error:
            results.append(Result(kind, name, "failed", str(error)))
        except TrilemmaError as error:
            results.append(Result(kind, name, "failed", str(error)))
        except Exception as error:  # a plugin may raise anything
            results.append(Result(kind, name, "failed", f"raised {type(error).__name__}: {error}"))
    return results


def check_sampler(sampler: Sampler | str) -> None:
    """Raises AssertionError with every check that a sampler fails; for a plugin's own tests."""
    failed = [result for result in run_checks("sampler", sampler) if result.failed]
    assert not failed, "; ".join(f"{result.check}: {result.detail}" for result in failed)
