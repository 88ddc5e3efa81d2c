"""From a spec string to the object it describes."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, cast

from trilemma.errors import (
    PluginUnavailable,
    TrilemmaError,
    UsageError,
    described,
    message_of,
    shown,
)
from trilemma.registry.catalog import Catalog, Component
from trilemma.registry.manager import catalog, registered_name
from trilemma.registry.options import annotation_of, checked_options, is_value, resolved_options
from trilemma.registry.quarantine import UserInterrupt, quarantine
from trilemma.registry.recording import options_of, recorded, recorded_condition
from trilemma.registry.spec import Spec, format_spec, parse_spec
from trilemma.registry.specs import KINDS, ComponentSpec


def build(kind: str, spec: Any, /, **extra: Any) -> tuple[Any, str]:
    """Builds the object that a spec string describes; returns it and its canonical spec with every default resolved.

    Args:
        kind: process, denoiser, sampler, guidance, objective, dataset or metric.
        spec: a spec string; any other object is returned as it is, with a description of it.
        extra: further arguments of the constructor; they come before options of the same name.

    Raises:
        PluginUnavailable: for an unknown name, or a component whose module cannot be imported.
        UsageError: for a malformed spec, an unknown or missing option, or a value that the component refuses.
    """
    if not isinstance(spec, str):
        return spec, describe(kind, spec)
    from trilemma.machine.allowance import allowance_of_the_machine

    parsed = parse_spec(spec)
    found = catalog().find(kind, parsed.name)
    target = import_target(found)
    label = f"{kind} {found.address}"
    given = _with_components(target, parsed.options)
    options = checked_options(label, target, {**given, **extra})
    try:
        with allowance_of_the_machine(kind):
            made = target(**options)
    except TrilemmaError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{label}: {message_of(error)}; correct its options") from error
    except Exception as error:
        # A constructor may fail in its own way on a value that it did not foresee.
        raise UsageError(f"{label}: {described(error)}; correct its options") from error
    if dataclasses.is_dataclass(made) and type(made) is target:
        return made, describe(kind, made, found.address)
    resolved = resolved_options(target, options)
    return made, format_spec(found.address, {key: recorded(value, _name) for key, value in resolved.items()})


def _with_components(target: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with components built where specs stand for them, name(key=value); by the annotation's kind."""
    return {
        key: _built(key, annotation_of(target, key), value) if isinstance(value, Spec) else value
        for key, value in options.items()
    }


def _built(key: str, annotation: Any, spec: Spec) -> Any:
    named = [annotation, *typing.get_args(annotation)]
    kinds = [getattr(entry, "__name__", "").lower() for entry in named]
    kind = next((kind for kind in kinds if kind in KINDS), None)
    if kind is None:
        raise UsageError(
            f"{key}={shown(spec.nested())} is a component, which this option does not take; give a value"
        )
    return build(kind, str(spec))[0]


def component(kind: str, name: str) -> ComponentSpec:
    """Returns the component that was registered under a name or distribution/name.

    Raises:
        PluginUnavailable: for an unknown name, with the nearest ones and all known ones.
        UsageError: for a name that two distributions have.
    """
    return catalog().find(kind, name).spec


def import_target(found: Component) -> Callable[..., Any]:
    """Imports and returns the class or function that a component names.

    Raises:
        PluginUnavailable: where it cannot be imported, with the extra that would bring what is missing.
    """
    spec, owner = found.spec, found.plugin
    label = f"{spec.kind} {found.address}"
    try:
        with nullcontext() if found.built_in or spec.module in sys.modules else quarantine():
            target: Any = importlib.import_module(spec.module)
    except ModuleNotFoundError as error:
        if error.name and f"{spec.module}.".startswith(f"{error.name}."):
            cure = f"install {owner.distribution} again"
        elif spec.extra:
            cure = f'pip install "{owner.distribution}[{spec.extra}]"'
        else:
            cure = f"install what {owner.distribution} requires"
        message = f"{label} needs the module {error.name!r}, which is not installed; {cure}"
        raise PluginUnavailable(message) from error
    except (UserInterrupt, TrilemmaError):
        raise
    except BaseException as error:
        # Other people's module may raise anything, SystemExit too.
        if found.built_in and isinstance(error, KeyboardInterrupt):
            raise
        message = f"{label}: importing {spec.module} failed: {described(error)}; repair {owner.distribution}"
        raise PluginUnavailable(message) from error
    for part in spec.attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise PluginUnavailable(f"{label}: there is no class {spec.target}; repair {owner.distribution}")
    return cast(Callable[..., Any], target)


def samplers_of_components(components: int) -> list[str]:
    """Returns the names of the samplers that declare to run on a process of `components` components."""
    fitting = []
    for found in catalog().components("sampler"):
        try:
            declared = getattr(import_target(found), "components", (1,))
        except PluginUnavailable:
            continue
        if declared is None or components in declared:
            fitting.append(found.address)
    return sorted(fitting)


def default_samplers() -> list[str]:
    """Returns the addresses of the samplers that stand in where none is named, the built-in ones first."""
    return _standing_in("sampler", "default")


def default_models() -> list[str]:
    """Returns the addresses of the models that examples draw from, the built-in ones first."""
    return _standing_in("model", "default")


def default_features() -> list[str]:
    """Returns the addresses of the feature networks that stand in where none is named, the built-in ones first."""
    return _standing_in("metric", "default_features")


def _standing_in(kind: str, flag: str) -> list[str]:
    declared = [found for found in catalog().components(kind) if getattr(found.spec, flag)]
    return [found.address for found in sorted(declared, key=lambda found: not found.built_in)]


def describe(kind: str, made: Any, name: str | None = None) -> str:
    """Returns the canonical spec of an object: its registered name, else its class's, with its options.

    Args:
        kind: of component.
        made: the object.
        name: to write instead of the one found for its class.
    """
    terms = made.terms() if callable(getattr(made, "terms", None)) else [(made, ())]
    name = name if len(terms) == 1 else None
    return "+".join(_described(kind, term, left_out, name) for term, left_out in terms)


def condition(value: Any) -> Any:
    """Returns a condition as a record can hold it; see `recording.recorded_condition`."""
    return recorded_condition(value, _name)


def _described(kind: str, made: Any, left_out: Collection[str], name: str | None) -> str:
    if is_value(made):
        return _described_value(catalog(), kind, made, tuple(left_out), name)
    return _written(kind, made, left_out, name)


@lru_cache(256)
def _described_value(
    known: Catalog, kind: str, made: Any, left_out: tuple[str, ...], name: str | None
) -> str:
    return _written(kind, made, left_out, name)


def _written(kind: str, made: Any, left_out: Collection[str], name: str | None) -> str:
    options = options_of(made, _name)
    written = {key: value for key, value in options.items() if key not in left_out}
    return format_spec(name or _name(made, kind or None), written)


def _name(made: Any, kind: str | None = None) -> str:
    return registered_name(type(made), kind)
