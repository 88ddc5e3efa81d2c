"""The options of a component: the keyword arguments of its constructor, checked before it is called."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin

from trilemma.checks import as_integer
from trilemma.errors import UsageError, nearest, shown
from trilemma.registry.manager import registered_name


class WithOptions:
    """A component whose options are the fields of a frozen dataclass, checked as it is made.

    Whatever way it is made, by a spec or by its class, each option has its annotated type afterwards: NumPy's numbers
    and tensors of one element are Python numbers, integers stand for floats, and no number is NaN or, unless the
    default is, infinite. A class with checks of its own calls `super().__post_init__()` first.

    Raises:
        UsageError: for an option of another type, or a number that is not finite.
    """

    def __post_init__(self) -> None:
        if dataclasses.is_dataclass(self):
            _check_fields(self)


def is_value(component: object) -> bool:
    """Returns whether a component is a value, decided by its fields: a frozen dataclass that has a hash."""
    parameters = vars(type(component)).get("__dataclass_params__")
    if parameters is None or not (parameters.frozen and parameters.eq):
        return False
    try:
        hash(component)
    except TypeError:
        return False
    return True


def checked_options(label: str, target: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given options, each converted to its annotated type: an int where a float is asked for is one.

    Args:
        label: what the error calls the component, such as "sampler ddim".
        target: a class or function.
        given: options by name.

    Raises:
        UsageError: for an unknown option, with the nearest one, a value of another type, a number that is not finite,
            or a missing option.
    """
    parameters = option_parameters(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    for key in given:
        if key not in named and not takes_any:
            raise UsageError(f"{label} has no option {shown(key)}; {_suggestion(key, list(named))}")
    missing = [name for name, p in named.items() if p.default is p.empty and name not in given]
    if missing:
        raise UsageError(f"{label} needs the option {missing[0]!r}; add {missing[0]}=value")
    types_ = _annotations(target)
    return {
        key: _fitted(lambda: label, key, value, types_.get(key, Any), named[key].default)
        if key in named
        else value
        for key, value in given.items()
    }


def resolved_options(target: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given options with the defaults of the others, in the order of the constructor."""
    parameters = option_parameters(target)
    resolved = {
        name: given.get(name, parameter.default)
        for name, parameter in parameters.items()
        if name in given or parameter.default is not parameter.empty
    }
    return {**resolved, **{name: value for name, value in given.items() if name not in resolved}}


def option_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a constructor that can be given by name."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}
    return {p.name: p for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}


def _suggestion(key: str, known: list[str]) -> str:
    if not known:
        return "it takes none"
    near = nearest(key, known)
    return (f"did you mean {near[0]!r}? " if near else "") + f"its options: {', '.join(known)}"


def annotation_of(target: Callable[..., Any], option: str) -> Any:
    """Returns the annotated type of an option; Any where it has none or one that cannot be resolved."""
    return _annotations(target).get(option, Any)


@functools.lru_cache(maxsize=1024)
def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a constructor, without those that only a type checker can resolve."""
    if dataclasses.is_dataclass(target):
        found: dict[str, Any] = {}
        for base in reversed(inspect.getmro(cast(type, target))):
            found |= _resolved(inspect.get_annotations(base), vars(sys.modules.get(base.__module__, object)))
        return found
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        return _resolved(inspect.get_annotations(constructor), getattr(constructor, "__globals__", {}))
    except TypeError:
        # The target is no function and has no annotations.
        return {}


def _resolved(annotations: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, annotation in annotations.items():
        try:
            one = types.SimpleNamespace(__annotations__={name: annotation})
            found |= typing.get_type_hints(one, globalns=dict(namespace))
        except Exception:
            # An annotation may be any expression: the value is left to the constructor.
            continue
    return found


def _check_fields(made: Any) -> None:
    types_ = _annotations(cast(Callable[..., Any], type(made)))

    def label() -> str:
        return registered_name(type(made))

    for field in dataclasses.fields(made):
        if not field.init:
            continue
        given = getattr(made, field.name)
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        value = _fitted(label, field.name, given, types_.get(field.name, Any), default)
        if value is not given:
            object.__setattr__(made, field.name, value)


def _fitted(label: Callable[[], str], key: str, value: Any, annotation: Any, default: Any) -> Any:
    if value is default or annotation is Any:
        return value
    plain = value if fits(value, annotation) else _plain(value)
    read = _read_as(plain, annotation) if type(plain) is str else []
    for candidate in (plain, *_alternatives(plain), *read):
        if fits(candidate, annotation):
            _check_finite(label, key, candidate, default)
            return candidate
    wanted = _readable(annotation)
    text = str(plain) if type(plain) in (int, float, bool) else ""
    cure = f"write {key}={text!r}" if text and fits(text, annotation) else f"give {key} as {wanted}"
    raise UsageError(f"{label()}: {key}={shown(value)} is not {wanted}; {cure}")


def _plain(value: Any) -> Any:
    """Numbers of other libraries as Python's, an array or tensor as nested lists; anything else as it is."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        plain = [_plain(entry) for entry in value]
        return value if all(a is b for a, b in zip(plain, value, strict=True)) else type(value)(plain)
    if not isinstance(value, int) and (integer := as_integer(value)) is not None:
        return integer
    if hasattr(value, "dtype") and callable(getattr(value, "tolist", None)):
        # A tensor may have no numbers to read.
        with contextlib.suppress(Exception):
            return value.tolist()
    return value


def _alternatives(value: Any) -> list[Any]:
    """Returns other values that a value can stand for without loss: a float for an integer, a path for its name, …"""
    if isinstance(value, bool):
        return []
    found: list[Any] = []
    if isinstance(value, enum.Enum):
        found += [*_alternatives(value.value), value.value]
    if (integer := as_integer(value)) is not None:
        found.append(integer)
    if isinstance(value, numbers.Real):
        with_float = _as_float(value)
        found += [] if with_float is None else [with_float]
    if isinstance(value, str):
        found.append(str.__str__(value))
    if isinstance(value, os.PathLike):
        found.append(os.fspath(value))
    return found


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (OverflowError, ValueError, TypeError):
        return None


def _check_finite(label: Callable[[], str], key: str, value: Any, default: Any) -> None:
    """Refuses NaN, and infinite numbers where the default is finite."""
    if isinstance(value, list | tuple):
        for entry in value:
            _check_finite(label, key, entry, default)
    elif isinstance(value, float) and not math.isfinite(value):
        may_be_infinite = isinstance(default, float) and math.isinf(default)
        if math.isnan(value) or not may_be_infinite:
            raise UsageError(f"{label()}: {key}={value!r} is not finite; give a finite number")


def fits(value: Any, annotation: Any) -> bool:
    """Returns whether a value has the annotated type, as far as numbers, strings, choices and their containers go.

    A component, a network, a member of an enumeration, a path or a dtype fits its class. Anything that is annotated
    otherwise fits; the constructor checks it.
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
    if origin is dict:
        key, entry = arguments or (Any, Any)
        return isinstance(value, dict) and all(
            fits(k, key) and _nearly_fits(v, entry) for k, v in value.items()
        )
    if _is_known(annotation):
        return isinstance(value, annotation)
    return True


def _is_known(annotation: Any) -> bool:
    """Returns whether a class takes its own objects alone: components, networks, enumerations, paths and dtypes do."""
    if annotation is Path or _is_enumeration(annotation) or _is_dtype(annotation):
        return True
    is_class = isinstance(annotation, type)
    return is_class and (issubclass(annotation, WithOptions) or hasattr(annotation, "load_state_dict"))


def _is_enumeration(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


def _is_dtype(annotation: Any) -> bool:
    return (getattr(annotation, "__module__", ""), getattr(annotation, "__name__", "")) == ("torch", "dtype")


def _read_as(text: str, annotation: Any) -> list[Any]:
    """Returns the meaning of a text for an option of this annotation: a member of an enumeration, a path, a dtype."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [found for argument in get_args(annotation) for found in _read_as(text, argument)]
    if _is_enumeration(annotation):
        name = text.removeprefix(f"{annotation.__name__}.")
        return [member for key, member in annotation.__members__.items() if key == name]
    if annotation is Path:
        return [Path(text)]
    if _is_dtype(annotation):
        return [getattr(sys.modules["torch"], text.removeprefix("torch."), None)]
    return []


def _nearly_fits(value: Any, annotation: Any) -> bool:
    if fits(value, annotation):
        return True
    as_float = _as_float(value) if type(value) is int else None
    return as_float is not None and fits(as_float, annotation)


def _readable(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_readable(argument) for argument in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if annotation is type(None):
        return "None"
    if get_origin(annotation) in (list, tuple, AbstractSequence):
        return f"list of {_readable(get_args(annotation)[0])}" if get_args(annotation) else "list"
    if get_origin(annotation) is dict:
        return f"{{name: {_readable(get_args(annotation)[1])}}}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
