"""Operators: a schema, a definition in PyTorch, and native kernels that equal it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from inspect import signature
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import choice, native

BACKENDS: Final = ("auto", "native", "reference")
OPERATORS: Final[dict[str, Operator]] = {}

library: Final = torch.library.Library("trilemma", "DEF")


class Operator:
    """An operator of the engine, registered once with torch as `trilemma::NAME`.

    The reference runs on every device. The native libraries, where they load, add kernels for CPU and CUDA tensors
    that run what they support and hand the rest to the twin `trilemma::NAME_reference`; the option `backend` says
    whether they may. For the same arguments `NAME_why_not_native` returns why they cannot run natively, "" where they
    can.

    Args:
        name: the name.
        arguments: its arguments as torch writes a schema, without parentheses; the reference takes the same.
        returns: its results as torch writes them; "()" for an operator that only writes into its arguments.
        reference: the definition, in PyTorch.
        check: raises UsageError where the arguments do not fit together.
        fake: shapes and dtypes of the results, without computing them; none is needed where nothing is returned.
        gradients: the arguments that `register_autograd` is given a formula for. For a gradient of another one, and in
            forward-mode derivatives and transforms of `torch.func`, the reference runs; an operator that writes into
            its arguments refuses them.
        record: the class that holds the arguments, where `reference` and `check` take one record of them.
        why_left: says why a call is left to PyTorch before it comes here, "" where it is not; see
            `trilemma.ops.choice`.
    """

    def __init__(
        self,
        name: str,
        arguments: str,
        returns: str,
        reference: Callable[..., Any],
        check: Callable[..., None],
        fake: Callable[..., Any] | None = None,
        gradients: Collection[str] = (),
        record: Callable[..., Any] | None = None,
        why_left: Callable[..., str] | None = None,
    ) -> None:
        self.name = name
        self._why_left = why_left
        if record is not None:
            reference, check = _of_record(record, reference), _of_record(record, check)
        self.reference, self.check = reference, check
        self.signature = signature(record or reference)
        self._writes = "!" in arguments
        self._with_formula = frozenset(
            place for place, argument in enumerate(self.signature.parameters) if argument in gradients
        )
        shapes = fake or _nothing

        def fake_without_backend(*values: Any, backend: str = "auto") -> Any:
            return shapes(*values)

        library.define(f'{name}({arguments}, *, str backend="auto") -> {returns}')
        library.impl(name, self._without_native, "CompositeExplicitAutograd")
        torch.library.register_fake(f"trilemma::{name}", fake_without_backend, lib=library)
        library.define(f"{name}_reference({arguments}) -> {returns}")
        library.impl(f"{name}_reference", reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"trilemma::{name}_reference", shapes, lib=library)
        native.load()
        self._overload = getattr(torch.ops.trilemma, name).default
        OPERATORS[name] = self

    def __call__(self, *arguments: Any) -> Any:
        """Runs the operator on the backend that TRILEMMA_BACKEND allows.

        Raises:
            UsageError: where the arguments do not fit together, or for a derivative that does not exist.
            TrilemmaError: where TRILEMMA_BACKEND=native cannot be kept.
        """
        backend = requested_backend()
        if self._is_beyond_its_formulas(arguments):
            if self._writes:
                raise UsageError(
                    f"{self.name} has no gradient, no forward-mode derivative and no transform of torch.func; "
                    "call it under torch.no_grad() and outside of them"
                )
            return self.reference(*arguments)
        try:
            # The default has no keyword, which would cost as much as some kernels.
            if backend == "auto":
                return self._overload(*arguments)
            return self._overload(*arguments, backend=backend)
        except RuntimeError as error:
            self.check(*arguments)
            raise _without_place(error) from error

    def launcher(self) -> Callable[..., Any]:
        """Returns this operator for calls that follow each other under the same circumstances.

        The backend that TRILEMMA_BACKEND allows is looked up once, and so is whether derivatives may be asked for.
        """
        if torch.is_grad_enabled() or is_transformed():
            return self
        backend, overload = requested_backend(), self._overload
        options = {} if backend == "auto" else {"backend": backend}

        def launch(*arguments: Any) -> Any:
            try:
                return overload(*arguments, **options)
            except RuntimeError as error:
                self.check(*arguments)
                raise _without_place(error) from error

        return launch

    def _is_beyond_its_formulas(self, arguments: tuple[Any, ...]) -> bool:
        if torch.is_grad_enabled():
            for place, value in enumerate(arguments):
                if isinstance(value, Tensor):
                    if value.requires_grad and place not in self._with_formula:
                        return True
                elif isinstance(value, list | tuple) and any(_requires_grad(entry) for entry in value):
                    return True
        return is_transformed(*arguments)

    def why_not_native(self, *arguments: Any, **options: Any) -> str:
        """Returns the reason why these arguments run on the reference; "" where they run natively.

        Without arguments: as for contiguous float32 tensors on the CPU.
        """
        if requested_backend() == "reference":
            return "TRILEMMA_BACKEND=reference"
        asked = getattr(torch.ops.trilemma, f"{self.name}_why_not_native", None)
        missing = native.load() or ("" if asked else "the native libraries are older; build them again")
        if missing or asked is None or not (arguments or options):
            return missing
        given = self.given(*arguments, **options)
        if isinstance(given.get("seed"), int):
            # The seed changes nothing here, and an operator's int has only 63 bits.
            given["seed"] = 0
        self.check(*given.values())
        for name, value in given.items():
            if isinstance(value, Tensor) and (why := _why_not_there(value.device)):
                return f"{name} is on {value.device}, {why}"
        try:
            found: str = asked(*given.values())
        except NotImplementedError:
            return "it has no native kernel for tensors of this device"
        if not found and self._why_left is not None:
            found = self._why_left(*given.values())
        asked_for = requested_backend() == "native" and found in choice.REASONS.values()
        return "" if asked_for else found

    def given(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Returns all arguments by name, in order.

        Raises:
            TypeError: for arguments that are not the operator's.
        """
        names = self.signature.parameters
        if len(arguments) == len(names) and not options:
            # To bind them costs more than the call that they are for.
            return dict(zip(names, arguments, strict=True))
        bound = self.signature.bind(*arguments, **options)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _without_native(self, *arguments: Any, backend: str = "auto") -> Any:
        if backend == "native":
            devices = (value.device for value in arguments if isinstance(value, Tensor))
            why = native.load() or next(
                filter(None, map(_why_not_there, devices)), "it has no kernel for them"
            )
            raise TrilemmaError(f"TRILEMMA_BACKEND=native, but {self.name} cannot run natively: {why}")
        return self.reference(*arguments)


def _of_record(record: Callable[..., Any], function: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function of an operator's arguments, from one of the record that holds them."""
    return lambda *arguments, **named: function(record(*arguments, **named))


def _why_not_there(device: torch.device) -> str:
    """Returns the reason why there is no native kernel for a device's tensors; "" where there can be one."""
    if device.type == "cuda":
        return native.load_cuda()
    return "" if device.type == "cpu" else "where no native kernel runs"


def requested_backend() -> str:
    """Returns TRILEMMA_BACKEND: "auto" (native where it can), "native" (or an error) or "reference"."""
    backend = os.environ.get("TRILEMMA_BACKEND") or "auto"
    if backend not in BACKENDS:
        raise UsageError(f"TRILEMMA_BACKEND={backend} is unknown; choose from {', '.join(BACKENDS)}")
    return backend


def why_tokens_left(op: str, x: Tensor, *tensors: Tensor | None) -> str:
    """Returns why an operator on tokens [..., C] is left to PyTorch; "" where it is not.

    Args:
        op: the operator. Where its gradient is asked for, that of the gradient decides, `{op}_backward`.
        x: whose size counts.
        tensors: what a gradient may be asked for beside it.
    """
    backward = f"{op}_backward"
    if not (choice.chooses(op) or choice.chooses(backward)):
        return ""
    if torch.is_grad_enabled() and any(_requires_grad(tensor) for tensor in (x, *tensors)):
        op = backward
    return why_sizes_left(op, x)


def why_sizes_left(op: str, x: Tensor) -> str:
    """Returns why an operator is left to PyTorch for tokens of this size, whatever a gradient is asked for."""
    if not choice.chooses(op) or torch.compiler.is_compiling() or not x.is_cpu or not x.numel():
        return ""
    channels = x.shape[-1]
    tokens, layout = x.numel() // channels, 0 if x.is_contiguous() else 1
    why = choice.why_left(op, x.dtype, layout, channels * channels, tokens * tokens)
    return why if why and requested_backend() == "auto" else ""


def is_transformed(*tensors: Any) -> bool:
    """Returns whether this thread is in a transform of `torch.func`, or a tensor carries a forward-mode derivative."""
    if torch.compiler.is_compiling():
        return bool(_is_compiled_in_a_transform())
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return forward_ad._current_level >= 0 and any(
        isinstance(tensor, Tensor) and forward_ad.unpack_dual(tensor).tangent is not None
        for argument in tensors
        for tensor in (argument if isinstance(argument, list | tuple) else (argument,))
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_compiled_in_a_transform() -> bool:
    """As `is_transformed` for the compiler, which asks while it traces and guards the answer."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def signed(seed: int) -> int:
    """Returns a seed of 0 to 2^64 - 1 as the signed number of the same bits, which an operator's int can hold."""
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def check_real(name: str, tensor: Tensor) -> None:
    """Raises UsageError for a tensor of integers or complex numbers."""
    if not tensor.is_floating_point():
        raise UsageError(f"{name} is {tensor.dtype}; expected a floating-point tensor")


def check_like(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raises UsageError for a tensor of another shape, dtype or device than x."""
    if tensor.shape != x.shape or tensor.dtype != x.dtype:
        raise UsageError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {x.dtype} {tuple(x.shape)} as x"
        )
    check_device(name, tensor, x)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raises UsageError for a tensor on another device than x."""
    if tensor.device != x.device:
        raise UsageError(f"{name} is on {tensor.device}, x on {x.device}; move one to the other")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that an operator computes in: float32 on half storage."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _requires_grad(entry: object) -> bool:
    return isinstance(entry, Tensor) and entry.requires_grad


def _nothing(*arguments: Any) -> None:
    """In place: a fake has no shape to infer."""


def _without_place(error: RuntimeError) -> Exception:
    """A refusal of the native library without the place in its sources; any other error as it is."""
    _, refusal, reason = str(error).partition("TRILEMMA_BACKEND")
    return TrilemmaError(refusal + reason.splitlines()[0]) if refusal else error
