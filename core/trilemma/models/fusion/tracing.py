"""Traces the forward of one module into a graph, its children taken as they are.

`torch.fx.Tracer.trace` patches `nn.Module` for the whole process. Here nothing is patched: the forward runs on a
shadow of the module, whose children record their calls, with proxies that record themselves.
"""

from __future__ import annotations

import inspect
import logging
import operator
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute
from torch.nn.modules import module as modules

from trilemma.models.construction import DRAWS, LIKE
from trilemma.models.fusion.swapping import own_class

_COPIED: Final = (list, dict, set, deque, Counter, OrderedDict, defaultdict)
_CONSTANT: Final = (
    *(
        types.ModuleType,
        types.FunctionType,
        types.BuiltinFunctionType,
        type,
        str,
        bytes,
        int,
        float,
        complex,
        tuple,
    ),
    *(
        bool,
        frozenset,
        type(None),
        torch.dtype,
        torch.device,
        torch.memory_format,
        types.GenericAlias,
        property,
        logging.Logger,
    ),
)


_DIMENSIONS: Final = 4
_FACTS: Final = (
    *("shape", "size", "dim", "ndim", "numel", "nelement", "stride", "element_size", "item", "tolist"),
    *("dtype", "device", "layout", "is_cuda", "itemsize", "requires_grad", "__len__"),
)
# They take numbers, which may be read out of tensors.
_BY_NUMBERS: Final = ("arange", "full", "linspace", "logspace", "eye")
_IN_PLACE: Final = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


def writes_in_place(function: Any) -> bool:
    """Returns whether a function of torch or `operator` writes into its first argument, by its name."""
    name = str(getattr(function, "__name__", function))
    return name.strip("_") in (*_IN_PLACE, "setitem") or (name.endswith("_") and not name.endswith("__"))


class CannotTrace(Exception):
    """The forward decides by the values or shapes that it sees; the message says how."""


def trace(module: nn.Module, given: tuple[str, ...] = ()) -> fx.Graph:
    """Returns what the forward of a module calls, with the calls of its children as `call_module`.

    The forward runs once, on proxies, and neither the module nor anything else in the process changes, but for what it
    logs. Arguments without a default are taken to be tensors, and so are those `given`; the others are left out.

    Raises:
        CannotTrace: where the forward cannot be traced.
    """
    forward = own_class(module).forward
    _refuse_what_lasts(forward)
    tracer = _Tracer()
    tracer.root, tracer.graph = nn.Module(), fx.Graph()
    tracer.device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
    proxies = [tracer.create_proxy("placeholder", name, (), {}) for name in _required_parameters(forward)]
    named = {name: tracer.create_proxy("placeholder", name, (), {}) for name in given}
    try:
        shadow = _Shadows(tracer).of(module, "")
        with _NothingLasts():
            result = forward(shadow, *proxies, **named)
        tracer.graph.output(tracer.create_arg(result))
    except CannotTrace:
        raise
    except Exception as error:
        # Another author's forward may raise anything on proxies.
        raise CannotTrace((str(error) or type(error).__name__).split(". ")[0].splitlines()[0]) from error
    if _held(vars(shadow)):
        raise CannotTrace("it keeps a tensor that it computes")
    return tracer.graph


def may_be_given(module: nn.Module) -> list[str]:
    """Returns the arguments of a forward whose default is None."""
    forward = own_class(module).forward
    if not hasattr(forward, "__code__"):
        return []
    parameters = inspect.signature(forward).parameters
    return [name for name, parameter in parameters.items() if parameter.default is None]


class _TensorProxy(fx.Proxy):
    """A proxy that passes for a tensor: a forward that asks `isinstance` takes the branch for tensors."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return torch.Tensor

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes; their number is that of images, for forwards that ask for it."""
        sizes: Any = Attribute(self, "shape")
        return tuple(sizes[axis] for axis in range(_DIMENSIONS))

    @property
    def ndim(self) -> int:
        return _DIMENSIONS

    @property
    def device(self) -> torch.device:
        """That of the weights, as far as there are any."""
        tracer: Any = self.tracer
        device: torch.device = tracer.device
        return device


def _record_in_place(name: str) -> None:
    def method(self: _TensorProxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    setattr(_TensorProxy, f"__{name}__", method)


# fx takes them for their namesakes that make a new tensor.
for _name in _IN_PLACE:
    _record_in_place(_name)


class _Tracer(fx.Tracer):
    device: torch.device

    def proxy(self, node: fx.Node) -> fx.Proxy:
        # torch's parser reads what passes for a tensor where it expects a number as the memory of one, and crashes.
        return _TensorProxy(node, self) if _is_tensor(node) else fx.Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if type(a) is _TensorProxy:
            return a.node
        if isinstance(a, Tensor | nn.Module):
            # The graph never runs; only its calls are read.
            return None
        return super().create_arg(a)


def _is_tensor(node: fx.Node) -> bool:
    """Returns whether a value may be a tensor: no size, dtype or other fact about one, nor computed from such alone."""
    if node.op == "call_method":
        return node.target not in _FACTS
    if node.op != "call_function" or node.target is getattr:
        return node.op != "call_function" or node.args[1] not in _FACTS
    return not node.all_input_nodes or any(map(_is_tensor, node.all_input_nodes))


class _Shadows:
    """Stand-ins for a module and those below it: the same classes and attributes, but a child's call is recorded."""

    def __init__(self, tracer: _Tracer) -> None:
        self._tracer = tracer
        self._made: dict[int, nn.Module] = {}

    def of(self, module: nn.Module, path: str) -> nn.Module:
        made = self._made.get(id(module))
        if made is not None:
            return made
        shadow: nn.Module = object.__new__(own_class(module))
        self._made[id(module)] = shadow
        held = {
            name: type(value)(value) if type(value) in _COPIED and type(value) is not defaultdict else value
            for name, value in vars(module).items()
        }
        held["_modules"] = {
            name: None if child is None else self.of(child, f"{path}.{name}" if path else name)
            for name, child in module._modules.items()
        }
        if path:
            held |= {name: OrderedDict() for name in held if name.endswith("_hooks")}
            held["forward"] = self._recorder(path)
        shadow.__dict__.update(held)
        return shadow

    def _recorder(self, path: str) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._tracer.create_proxy("call_module", path, args, kwargs)

        return forward


class _NothingLasts(torch.overrides.TorchFunctionMode):
    """Refuses draws and writes: a trace must leave the process's generators and the module's tensors alone."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in DRAWS or func in LIKE:
            raise CannotTrace("it draws random numbers")
        if args and type(args[0]) is not _TensorProxy and writes_in_place(func):
            raise CannotTrace("it writes into a tensor that it holds")
        return func(*args, **(kwargs or {}))


def _refuse_what_lasts(forward: Any) -> None:
    """Refuses a forward whose run would be felt elsewhere: hooks, variables that it may change, generators."""
    if modules._global_forward_hooks or modules._global_forward_pre_hooks:
        raise CannotTrace("hooks are registered for all modules")
    code = getattr(forward, "__code__", None)
    if code is None:
        raise CannotTrace("its forward is no Python function")
    if made := [name for name in _BY_NUMBERS if name in code.co_names]:
        raise CannotTrace(f"it makes tensors by {made[0]}, perhaps of a computed number")
    cells = zip(code.co_freevars, forward.__closure__ or (), strict=True)
    seen = {name: forward.__globals__[name] for name in code.co_names if name in forward.__globals__}
    seen |= {name: cell.cell_contents for name, cell in cells if name != "__class__"}
    for name, value in seen.items():
        if not isinstance(value, _CONSTANT) or name in ("random", "numpy", "np"):
            raise CannotTrace(f"it may change {name!r}, which is not its own")


def _held(attributes: dict[str, Any]) -> list[Any]:
    """The proxies among attributes and in their containers."""
    values = list(attributes.values())
    for value in attributes.values():
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list | set | deque):
            values += value
    return [value for value in values if type(value) is _TensorProxy]


def _required_parameters(forward: Any) -> tuple[str, ...]:
    kinds = inspect.Parameter
    required = []
    for parameter in list(inspect.signature(forward).parameters.values())[1:]:
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            continue
        if parameter.default is not kinds.empty:
            break
        if parameter.kind == kinds.KEYWORD_ONLY:
            raise CannotTrace(f"its argument {parameter.name!r} can only be given by name")
        required.append(parameter.name)
    return tuple(required)
