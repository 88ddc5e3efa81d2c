"""The options of a component: the keyword arguments of its constructor, checked before it is called."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from typing import Any, Literal, Union, get_args, get_origin

from trilemma.errors import UsageError
from trilemma.spec import is_literal


def checked_options(label: str, target: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options with integers widened to float where the constructor asks for one.

    Args:
        label: what the error calls the component, such as "sampler ddim".
        target: a class or function.
        given: options by name.

    Raises:
        UsageError: for an unknown option, with the nearest one, a value of another type, or a missing option.
    """
    parameters = option_parameters(target)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(given)
    for key in given:
        if key not in parameters:
            raise UsageError(f"{label} has no option {key!r}; {_suggestion(key, list(parameters))}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in given]
    if missing:
        raise UsageError(f"{label} needs the option {missing[0]!r}; add {missing[0]}=value")
    types_ = _annotations(target)
    return {key: _fitted(label, key, value, types_.get(key, Any)) for key, value in given.items()}


def resolved_options(target: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options with the defaults of the others, in the order of the constructor."""
    parameters = option_parameters(target)
    resolved = {
        name: given.get(name, parameter.default)
        for name, parameter in parameters.items()
        if name in given or parameter.default is not parameter.empty
    }
    return {**resolved, **{name: value for name, value in given.items() if name not in resolved}}


def option_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor that can be given by name."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}
    return {p.name: p for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}


def _suggestion(key: str, known: list[str]) -> str:
    if not known:
        return "it takes none"
    near = difflib.get_close_matches(key, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"its options: {', '.join(known)}"


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        return typing.get_type_hints(constructor)
    except Exception:  # a name that only a type checker can resolve: leave the value to the constructor
        return {}


def _fitted(label: str, key: str, value: Any, annotation: Any) -> Any:
    if not is_literal(value) or fits(value, annotation):
        return value
    if type(value) is int and fits(float(value), annotation):
        return float(value)
    wanted = _readable(annotation)
    cure = f"write {key}={str(value)!r}" if fits(str(value), annotation) else f"give {key} as {wanted}"
    raise UsageError(f"{label}: {key}={value!r} is not {wanted}; {cure}")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value has the annotated type, as far as numbers, strings, choices and their containers go.

    Anything that is annotated otherwise fits: it is the constructor's business.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    if annotation in (bool, int, float, str):
        return type(value) is annotation
    if origin in (list, tuple, AbstractSequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(_nearly_fits, value, arguments))
        return all(_nearly_fits(entry, argument) for entry in value for argument in arguments[:1])
    return True


def _nearly_fits(value: Any, annotation: Any) -> bool:
    return fits(value, annotation) or (type(value) is int and fits(float(value), annotation))


def _readable(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_readable(argument) for argument in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if annotation is type(None):
        return "None"
    if get_origin(annotation) in (list, tuple, AbstractSequence):
        return f"list of {_readable(get_args(annotation)[0])}" if get_args(annotation) else "list"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
