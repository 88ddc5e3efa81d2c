"""From a spec string to the object it describes."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trilemma.errors import ModelError, PluginUnavailable, TrilemmaError, UsageError
from trilemma.options import checked_options, resolved_options
from trilemma.plugins.catalog import Component
from trilemma.plugins.manager import catalog
from trilemma.spec import format_spec, format_value, is_literal, parse_spec

if TYPE_CHECKING:
    import torch

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
    parsed = parse_spec(spec)
    component = catalog().find(kind, parsed.name)
    target = import_target(component)
    label = f"{kind} {component.address}"
    options = checked_options(label, target, {**parsed.options, **extra})
    try:
        made = target(**options)
    except TrilemmaError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{label}: {_one_line(error)}") from error
    literals = {key: value for key, value in resolved_options(target, options).items() if is_literal(value)}
    return made, format_spec(component.address, literals)


def import_target(component: Component) -> Callable[..., Any]:
    """The class or function that a component names, imported now.

    Raises:
        PluginUnavailable: where it cannot be imported, with the extra that would bring what is missing.
    """
    spec, owner = component.spec, component.plugin
    label = f"{spec.kind} {component.address}"
    try:
        target: Any = importlib.import_module(spec.module)
        for part in spec.attribute.split("."):
            target = getattr(target, part)
    except ModuleNotFoundError as error:
        if error.name and (spec.module + ".").startswith(error.name + "."):
            cure = f"its author must repair it, or {owner.distribution} must be installed again"
        elif spec.extra:
            cure = f'pip install "{owner.distribution}[{spec.extra}]"'
        else:
            cure = f"install what {owner.distribution} requires"
        raise PluginUnavailable(f"{label} needs the module {error.name!r}, which is not installed; {cure}") from error
    except AttributeError as error:
        raise PluginUnavailable(
            f"{label}: {spec.target} does not exist; {owner.distribution} must be repaired or installed again"
        ) from error
    except (KeyboardInterrupt, TrilemmaError):
        raise
    except BaseException as error:  # other people's module may raise anything, SystemExit too
        raise PluginUnavailable(
            f"{label}: importing {spec.module} failed with {type(error).__name__}: {_one_line(error)}; "
            f"{owner.distribution} must be repaired"
        ) from error
    if not callable(target):
        raise PluginUnavailable(f"{label}: {spec.target} cannot be called; {owner.distribution} must be repaired")
    return cast(Callable[..., Any], target)


def describe(kind: str, made: Any) -> str:
    """The canonical spec of an object: by its registered name where its class has one, else by its class's name."""
    target = f"{type(made).__module__}:{type(made).__qualname__}"
    known = catalog().by_target(kind, target) if kind else None
    name = known.address if known else type(made).__name__
    if not dataclasses.is_dataclass(made):
        return name
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made) if field.init}
    described = [f"{key}={format_value(v) if is_literal(v) else describe('', v)}" for key, v in fields.items()]
    return f"{name}:{','.join(described)}" if described else name


def load(
    model: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Denoiser:
    """A trained model by its name or directory, in evaluation mode and without gradients.

    Args:
        model: a registered name, such as "mnist", or the path of a model directory; a path holds a separator, is a
            `Path`, or names a directory with a `model.toml`.
        device: where to put it; CPU by default.
        dtype: dtype of the weights; float32 by default.

    Raises:
        PluginUnavailable: for an unknown name.
        ModelError: for a damaged model.
    """
    from trilemma.model_directory import load_model

    return load_model(model_path(model), device=device, dtype=dtype)


def model_path(model: str | Path) -> Path:
    """The directory that a model's name or path means; a directory comes before a name."""
    path = Path(model)
    if isinstance(model, Path) or (path / "model.toml").is_file():
        return path
    if not any(component.spec.name == model for component in catalog().components("model")) and (
        model.startswith((".", "~", "/")) or path.is_dir()
    ):
        return path.expanduser()
    component = catalog().find("model", model)
    package, _, folder = component.spec.target.partition(":")
    found = importlib.util.find_spec(package)
    roots = [Path(root) / folder for root in (found.submodule_search_locations or ())] if found else []
    for root in roots:
        if (root / "model.toml").is_file():
            return root
    raise ModelError(f"model {component.address} is missing from {package}; install {component.plugin.distribution} again")


def process(spec: str, /, **options: Any) -> Process:
    """The noising process of a spec such as "vp:schedule=cosine"; see `build`."""
    return cast("Process", build("process", spec, **options)[0])


def denoiser(spec: str, /, **options: Any) -> Denoiser:
    """A freshly initialised network of a spec such as "unet"; its process, shape, … are options; see `build`."""
    return cast("Denoiser", build("denoiser", spec, **options)[0])


def sampler(spec: str, /, **options: Any) -> Sampler:
    """The sampler of a spec such as "ddim:eta=0,grid=trailing"; see `build`."""
    return cast("Sampler", build("sampler", spec, **options)[0])


def guidance(spec: str, /, **options: Any) -> Guidance:
    """The guidance of a spec such as "cfg:scale=2"; see `build`."""
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
