"""From a spec string to the object it describes."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError
from trilemma.options import checked_options, resolved_options
from trilemma.plugins.catalog import Component
from trilemma.plugins.manager import catalog
from trilemma.plugins.quarantine import UserInterrupt, quarantine
from trilemma.plugins.specs import ComponentSpec
from trilemma.plugins.telling import described, message_of
from trilemma.spec import format_spec, format_value, is_literal, parse_spec, split_sum

if TYPE_CHECKING:
    from trilemma.denoiser import Denoiser
    from trilemma.guidance import Guidance
    from trilemma.objective import Objective
    from trilemma.process import Process
    from trilemma.sampler import Sampler


def build(kind: str, spec: Any, /, **extra: Any) -> tuple[Any, str]:
    """The object that a spec string describes, and its canonical spec: every option, defaults resolved.

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
    if kind == "guidance" and len(terms := split_sum(spec)) > 1:
        built = [build(kind, term, **extra) for term in terms]
        composed = importlib.import_module("trilemma.composition").composed
        return composed([made for made, _ in built]), "+".join(text for _, text in built)
    parsed = parse_spec(spec)
    found = catalog().find(kind, parsed.name)
    target = import_target(found)
    label = f"{kind} {found.address}"
    options = checked_options(label, target, {**parsed.options, **extra})
    try:
        with importlib.import_module("trilemma.allowance").allowance_of_the_machine(kind):
            made = target(**options)
    except TrilemmaError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{label}: {message_of(error)}") from error
    literals = {key: value for key, value in resolved_options(target, options).items() if is_literal(value)}
    return made, format_spec(found.address, literals)


def component(kind: str, name: str) -> ComponentSpec:
    """What was registered under a name or distribution/name.

    Raises:
        PluginUnavailable: for an unknown name, with the nearest ones and all known ones.
        UsageError: for a name that two distributions have.
    """
    return catalog().find(kind, name).spec


def import_target(found: Component) -> Callable[..., Any]:
    """The class or function that a component names, imported now.

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
    except BaseException as error:  # other people's module may raise anything, SystemExit too
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
    """The names of the samplers that declare to run on a process of so many components."""
    fitting = []
    for found in catalog().components("sampler"):
        try:
            declared = getattr(import_target(found), "components", (1,))
        except PluginUnavailable:
            continue
        if declared is None or components in declared:
            fitting.append(found.address)
    return sorted(fitting)


def describe(kind: str, made: Any) -> str:
    """The canonical spec of an object, by its class's registered name where there is one."""
    target = f"{type(made).__module__}:{type(made).__qualname__}"
    known = catalog().by_target(kind, target) if kind else None
    name = known.address if known else type(made).__name__
    if not dataclasses.is_dataclass(made):
        return name
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made) if field.init}
    texts = {key: format_value(v) if is_literal(v) else describe("", v) for key, v in fields.items()}
    return f"{name}:{','.join(f'{key}={text}' for key, text in texts.items())}" if texts else name


def process(spec: str, /, **options: Any) -> Process:
    """The noising process of a spec such as "vp:schedule=cosine"; see `build`."""
    return cast("Process", build("process", spec, **options)[0])


def denoiser(spec: str, /, **options: Any) -> Denoiser:
    """A freshly initialised network of a spec such as "unet"; process and shape are options; see `build`."""
    return cast("Denoiser", build("denoiser", spec, **options)[0])


def sampler(spec: str, /, **options: Any) -> Sampler:
    """The sampler of a spec such as "ddim:eta=0,grid=trailing"; see `build`."""
    return cast("Sampler", build("sampler", spec, **options)[0])


def guidance(spec: str, /, **options: Any) -> Guidance:
    """The guidance of a spec such as "cfg:scale=2" or "cfg:scale=3+interval:lo=0.2"; see `build`."""
    return cast("Guidance", build("guidance", spec, **options)[0])


def objective(spec: str, /, **options: Any) -> Objective:
    """The training objective of a spec such as "simple:weighting=min-snr"; see `build`."""
    return cast("Objective", build("objective", spec, **options)[0])


def dataset(spec: str, /, **options: Any) -> Any:
    """The data set of a spec such as "mnist:split=test"; see `build`."""
    return build("dataset", spec, **options)[0]


def metric(spec: str, /, **options: Any) -> Any:
    """The metric or feature network of a spec such as "frechet"; see `build`."""
    return build("metric", spec, **options)[0]
