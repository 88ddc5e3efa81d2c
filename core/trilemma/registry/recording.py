"""Records of any value: text that builds it again where that is possible, else a digest of its content.

Two values that differ have different records. Numbers of other libraries, enumerations, paths and dtypes are written as
plain values; a component is its name with its options; tensors, arrays, networks and functions are digests:

    <tensor 3×4 float32 sha256:…>   <network MLP 1234 parameters sha256:…>   <function mine.rule sha256:…>

A value whose content cannot be read is recorded by its identity in this process, so that no later value is mistaken for
it.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

from trilemma.registry.spec import Recorded, Spec, format_value, is_literal

# Characters of a value that are written out.
LONGEST_TEXT = 4096
# Entries of a list of conditions that are written out.
MOST_ENTRIES = 4096
# Floats that are written out; a longer list is an embedding.
MOST_NUMBERS = 16
# In the metadata of a field whose default value is not written.
ADDED_LATER = "added later"
_DIGITS = 16
_SESSION = uuid.uuid4().hex[:12]
_OF_TORCH = ("dtype", "device", "layout", "memory_format")

# The objects that are being digested, the outermost first: an object may hold itself.
_ACTIVE: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar("active", default=())

NameOf = Callable[[Any], str]


def recorded(value: Any, name_of: NameOf) -> Any:
    """Returns the form in which a spec holds a value: a literal, a `Spec` or a `Recorded`.

    Args:
        value: anything.
        name_of: the name of a component.
    """
    try:
        found = _found(value, name_of)
        text = format_value(found)
    except Exception:
        # Other people's values may refuse anything.
        return _unreadable(value)
    if len(text) <= LONGEST_TEXT or isinstance(found, Recorded):
        return found
    size = f" {len(value)}" if hasattr(value, "__len__") else ""
    return Recorded(f"{_kind(value)}{size} sha256:{_sha256(text)}")


def recorded_condition(value: Any, name_of: NameOf) -> Any:
    """Returns a condition as JSON holds it: a number, a text, a list with one entry a sample, or a digest of more.

    A list is kept up to 4,096 labels, or 16 numbers that are not whole.
    """
    is_array = _is_array(value) and callable(getattr(value, "tolist", None))
    if is_array and (len(value.shape) > 1 or _size(value) > MOST_ENTRIES):
        return str(_array(value))
    plain = value.tolist() if is_array else value
    if not isinstance(plain, list | tuple | range):
        found = recorded(plain, name_of)
        return found if isinstance(found, bool | int | float | str | None) else format_value(found)
    entries: list[Any] = [entry.item() if _is_scalar(entry) else entry for entry in cast(list[Any], plain)]
    simple = all(entry is None or type(entry) in (bool, int, float, str) for entry in entries)
    floats = sum(isinstance(entry, float) for entry in entries)
    if simple and floats <= MOST_NUMBERS and len(entries) <= MOST_ENTRIES:
        return entries
    return str(
        _array(value) if is_array else Recorded(f"list {_shape(plain)} sha256:{_held(entries, name_of)}")
    )


def _held(entries: list[Any], name_of: NameOf) -> str:
    return _sha256(_frozen(entries, name_of))


def options_of(made: Any, name_of: NameOf) -> dict[str, Any]:
    """Returns the options of a component as a spec holds them: its fields, or the arguments that its object keeps.

    Where an object does not keep its arguments, or has weights, `state` is a digest of its state; without state there
    is none.
    """
    if "__dataclass_fields__" in vars(type(made)):
        kept = {
            field.name: getattr(made, field.name) for field in dataclasses.fields(made) if _shows(field, made)
        }
        return {key: recorded(value, name_of) for key, value in kept.items()}
    state = _state(made)
    names = _constructor_options(type(made))
    if names is None or any(name not in state for name in names):
        return {"state": recorded(_State(made), name_of)} if state else {}
    options = {name: recorded(state[name], name_of) for name in names}
    more = made.state_dict() if callable(getattr(made, "state_dict", None)) else set(state) - set(names)
    return {**options, "state": recorded(_State(made), name_of)} if more else options


def _shows(field: dataclasses.Field[Any], made: Any) -> bool:
    """Returns whether a field is written: an option that came later is left out at its default, as old records are."""
    later = field.metadata.get(ADDED_LATER, False)
    return field.init and not (later and getattr(made, field.name) == field.default)


class _State:
    """All that an object keeps, as a value to digest."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner


def tensors_digest(tensors: Mapping[str, Any]) -> str:
    """Returns the sha256 of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _found(value: Any, name_of: NameOf) -> Any:
    if isinstance(value, Spec | Recorded) or is_literal(value):
        return value
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, os.PathLike):
        return _path(os.fspath(value))
    if type(value).__module__ == "torch" and type(value).__name__ in _OF_TORCH:
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "shape") and callable(getattr(value, "tolist", None)):
        scalar = value.tolist() if not len(value.shape) else None
        return scalar if is_literal(scalar) and scalar is not None else _array(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(recorded(entry, name_of) for entry in value)
    if type(value) is dict:
        return {_key(key, name_of): recorded(entry, name_of) for key, entry in value.items()}
    if isinstance(value, _State):
        return _digested(value.owner, name_of)
    if "__dataclass_fields__" in vars(type(value)):
        return Spec(name_of(value), options_of(value, name_of))
    if _has_no_state(value):
        return Spec(name_of(value))
    return _digested(value, name_of)


def _digested(value: Any, name_of: NameOf) -> Recorded:
    active = _ACTIVE.get()
    if id(value) in active:
        return Recorded(f"itself {len(active)}")
    token = _ACTIVE.set((*active, id(value)))
    try:
        return _digest(value, name_of)
    finally:
        _ACTIVE.reset(token)


def _digest(value: Any, name_of: NameOf) -> Recorded:
    content = _sha256(_content(value, name_of))
    if callable(getattr(value, "state_dict", None)):
        count = sum(int(parameter.numel()) for parameter in value.parameters())
        return Recorded(f"network {type(value).__name__} {count} parameters sha256:{content}")
    if inspect.isroutine(value) or isinstance(value, type | functools.partial):
        name = str(getattr(value, "__qualname__", type(value).__name__)).replace("<", "").replace(">", "")
        return Recorded(f"{_kind(value)} {name} sha256:{content}")
    size = f" {len(value)}" if hasattr(value, "__len__") else ""
    return Recorded(f"{_kind(value)}{size} sha256:{content}")


def _content(value: Any, name_of: NameOf) -> str:
    """A text that decides what a value does, as far as it shows."""
    head = f"{type(value).__module__}.{type(value).__qualname__}"
    if callable(getattr(value, "state_dict", None)):
        weights = tensors_digest(
            {key: entry for key, entry in value.state_dict().items() if _is_array(entry)}
        )
        return f"{head} {value!r} {weights} {_frozen(_settings(value), name_of)}"
    if isinstance(value, type):
        return f"class {value.__module__}.{value.__qualname__}"
    if isinstance(value, functools.partial):
        return f"{head} {_frozen([value.func, value.args, value.keywords], name_of)}"
    if inspect.ismethod(value):
        return f"{head} {_frozen([value.__func__, value.__self__], name_of)}"
    if isinstance(value, types.FunctionType):
        return _function(value, name_of)
    if inspect.isroutine(value):
        return f"{head} {value.__module__}.{value.__qualname__}"
    if isinstance(value, set | frozenset):
        return f"{head} {sorted(_frozen(entry, name_of) for entry in value)}"
    if isinstance(value, Mapping | list | tuple | range | complex | bytearray):
        parts = list(value.items()) if isinstance(value, Mapping) else value
        return f"{head} {_frozen(list(parts), name_of) if isinstance(parts, list | tuple) else repr(parts)}"
    if state := _state(value):
        return f"{head} {_frozen(state, name_of)}"
    text = repr(value)
    if "__repr__" not in _defined(type(value)) or " at 0x" in text:
        raise TypeError(f"{head} does not show its content")
    return f"{head} {text}"


def _frozen(value: Any, name_of: NameOf) -> str:
    """A text of a value and all that it holds."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return f"{type(value).__name__}[{', '.join(_frozen(entry, name_of) for entry in value)}]"
    if type(value) is dict:
        entries = (f"{_frozen(key, name_of)}: {_frozen(entry, name_of)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, types.CodeType):
        return f"code {value.co_code.hex()} {value.co_names} {_frozen(value.co_consts, name_of)}"
    found = recorded(value, name_of)
    if isinstance(found, Recorded) and f"of {_SESSION}" in found.text:
        raise TypeError("it holds what does not show its content")
    return format_value(found)


def _function(value: types.FunctionType, name_of: NameOf) -> str:
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    given = [value.__defaults__ or (), dict(value.__kwdefaults__ or {}), held]
    return f"{value.__module__}.{value.__qualname__} {_frozen([value.__code__, *given], name_of)}"


def _settings(module: Any) -> dict[str, Any]:
    """The plain attributes of a network and its parts, by their names."""
    parts = dict(module.named_modules()) if callable(getattr(module, "named_modules", None)) else {"": module}
    return {
        f"{part}.{key}": value
        for part, child in parts.items()
        for key, value in sorted(vars(child).items())
        if not key.startswith("_") and key != "card" and (is_literal(value) or inspect.isroutine(value))
    }


def _state(value: Any) -> dict[str, Any]:
    declared = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    names = [name for slots in declared for name in ([slots] if isinstance(slots, str) else slots)]
    kept = {name: getattr(value, name) for name in names if hasattr(value, name)}
    own = getattr(value, "__dict__", {})
    made_later = {name for base in type(value).__mro__ for name in vars(base) if _is_cached(vars(base)[name])}
    own = {name: entry for name, entry in own.items() if name not in made_later}
    return {**kept, **own}


def _is_cached(attribute: object) -> bool:
    return isinstance(attribute, functools.cached_property)


def _defined(made: type) -> set[str]:
    """Returns the names that a class and its bases but `object` define."""
    return {name for base in made.__mro__ if base is not object for name in vars(base)}


def _has_no_state(value: Any) -> bool:
    """Returns whether an object of a class written in Python keeps no state, so that its class describes it fully."""
    of_python = all(base is object or base.__module__ != "builtins" for base in type(value).__mro__)
    return of_python and hasattr(value, "__dict__") and not callable(value) and not _state(value)


def _constructor_options(made: type) -> list[str] | None:
    """The names that a constructor takes; None where it takes more than names."""
    if "__init__" not in _defined(made):
        return None
    try:
        parameters = list(inspect.signature(made).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _array(value: Any) -> Recorded:
    device = getattr(getattr(value, "device", None), "type", "cpu")
    content = _sha256(_bytes(value)) if device != "meta" else "none"
    kind = "tensor" if type(value).__module__.partition(".")[0] == "torch" else "array"
    dtype = str(value.dtype).removeprefix("torch.")
    return Recorded(f"{kind} {_dimensions(value.shape)} {dtype} sha256:{content}")


def _bytes(value: Any) -> bytes:
    if callable(getattr(value, "detach", None)):
        import torch

        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        plain = dense.cpu().contiguous().reshape(-1)
        if plain.is_conj() or plain.is_neg():
            plain = plain.resolve_conj().resolve_neg()
        return cast(bytes, plain.view(torch.uint8).numpy().tobytes())
    if value.dtype.hasobject:
        return repr(value.tolist()).encode("utf-8", "surrogatepass")
    return cast(bytes, value.tobytes())


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_scalar(value: Any) -> bool:
    return _is_array(value) and not len(value.shape)


def _size(value: Any) -> int:
    size = 1
    for extent in value.shape:
        size *= int(extent)
    return size


def _dimensions(shape: Any) -> str:
    return "x".join(str(int(extent)) for extent in shape) or "scalar"


def _shape(value: Any) -> str:
    """Lengths of nested lists, as far as the first entries say."""
    lengths = []
    while isinstance(value, list | tuple | range):
        lengths.append(len(value))
        value = value[0] if len(value) else None
    return "x".join(map(str, lengths))


def _key(key: Any, name_of: NameOf) -> Any:
    return key if is_literal(key) else format_value(recorded(key, name_of))


def _path(text: str | bytes) -> str:
    """A path as a text that is one even where a bare word would be a name."""
    path = os.fsdecode(text)
    return path if path.startswith(("/", "./", "../", "~")) else os.path.join(".", path)


def _kind(value: Any) -> str:
    if inspect.isroutine(value):
        return "function"
    return "class" if isinstance(value, type) else type(value).__name__


def _sha256(content: str | bytes) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _unreadable(value: Any) -> Recorded:
    return Recorded(f"{type(value).__name__} {id(value):x} of {_SESSION}")
