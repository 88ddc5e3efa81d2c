"""Builds modules that are the same whatever the process's random generators and default dtype are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

# They take the dtype of the process where none is given.
_FLOATING: Final = frozenset(
    (
        torch.empty,
        torch.zeros,
        torch.ones,
        torch.rand,
        torch.randn,
        torch.linspace,
        torch.logspace,
        torch.eye,
        torch.empty_strided,
        torch.empty_permuted,
        torch.hann_window,
        torch.hamming_window,
        torch.blackman_window,
        torch.bartlett_window,
        torch.kaiser_window,
        torch.scalar_tensor,
    )
)
# They take it for Python's floats.
_INFERRING: Final = frozenset(
    (torch.tensor, torch.as_tensor, torch.asarray, torch.full, torch.arange, torch.range)
)
DRAWS: Final = frozenset(
    (
        torch.rand,
        torch.randn,
        torch.randint,
        torch.randperm,
        torch.normal,
        torch.bernoulli,
        torch.multinomial,
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.bernoulli_,
        Tensor.random_,
        Tensor.exponential_,
        Tensor.cauchy_,
        Tensor.log_normal_,
        Tensor.geometric_,
        Tensor.multinomial,
        Tensor.bernoulli,
        torch.poisson,
        *tuple(
            value
            for value in vars(torch.nn.init).values()
            if inspect.isfunction(value) and "generator" in inspect.signature(value).parameters
        ),
    )
)
LIKE: Final[dict[Any, Callable[..., Tensor]]] = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
_CONVERSIONS: Final = frozenset(
    (Tensor.to, Tensor.type, Tensor.double, Tensor.float, Tensor.half, Tensor.bfloat16)
)


class Constructing(torch.overrides.TorchFunctionMode):
    """Makes the modules built inside depend on `seed` and their arguments alone.

    Draws that name no generator come from one of its own, the same numbers as after `torch.manual_seed(seed)`, and
    torch's global generators stay as they are. Tensors that name no dtype are float32 whatever
    `torch.set_default_dtype` says. Both hold in this thread alone, and change nothing in others.

    Args:
        seed: 0 ≤ seed < 2⁶⁴.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in LIKE:
            func, args, given = LIKE[func], (args[0].shape,), _as(args[0], given)
        if func in DRAWS and given.get("generator") is None:
            generator = self._generator(args, given)
            if generator is not None:
                given["generator"] = generator
        if torch.get_default_dtype() == torch.float32 or given.get("dtype") is not None:
            return func(*args, **given)
        return _in_float32(func, args, given)

    def _generator(self, args: tuple[Any, ...], given: dict[str, Any]) -> torch.Generator | None:
        """The generator of the device that is drawn on; None on one that holds no numbers."""
        device = given.get("device")
        if device is None:
            on = next((value.device for value in _tensors((*args, *given.values()))), None)
            device = torch.get_default_device() if on is None else on
        device = torch.device(device)
        if device.type == "meta":
            return None
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def _in_float32(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """`func`, which was given no dtype, as if the default were float32."""
    tensors = list(_tensors((*args, *given.values())))
    if func in _FLOATING or (func is torch.normal and not tensors):
        return func(*args, **{**given, "dtype": torch.float32})
    if func in _INFERRING:
        kinds = {type(number) for number in _numbers((*args, *given.values()))}
        if complex in kinds:
            given["dtype"] = torch.complex64
        elif float in kinds:
            given["dtype"] = torch.float32
        return func(*args, **given)
    result = func(*args, **given)
    if not isinstance(result, Tensor) or result.dtype not in _defaults():
        return result
    if not tensors or func in _CONVERSIONS or any(_inexact(tensor) for tensor in tensors):
        return result
    # Integers became the default dtype, as in a division.
    single_args = [value.float() if isinstance(value, Tensor) else value for value in args]
    return func(*single_args, **given)


def _defaults() -> tuple[torch.dtype, ...]:
    real = torch.get_default_dtype()
    return (real, torch.complex128) if real == torch.float64 else (real,)


def _numbers(values: Iterable[Any]) -> Iterator[Any]:
    """The numbers of nested sequences."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _numbers(value)
        else:
            yield value


def _inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _as(like: Tensor, given: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if name != "memory_format"}
    return {**kept, "dtype": given.get("dtype") or like.dtype, "device": given.get("device") or like.device}


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    return (value for value in values if isinstance(value, Tensor))
