"""The calibration of this machine: of each operator's two ways the faster one, over dtype, memory format and size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any, Final

import torch
from torch import Tensor

from trilemma.bench.timing import measure, ratio
from trilemma.ops import attention, choice, conv3x3, glu, group_norm_act, layer_norm
from trilemma.ops.choice import CHOSEN, NATIVE, Cell, Machine, Record
from trilemma.ops.choice.ways import NAMES
from trilemma.ops.convolution import transformed

# Seconds that the measurement takes at most, but for its last cell.
SECONDS: Final = 45.0
DTYPES: Final = ("float32", "bfloat16")
GROUPS, HEADS_DEPTH = 32, 128
_CPU: Final = torch.device("cpu")
_FORMATS: Final = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}

Call = Callable[[], object]


@dataclass(frozen=True)
class Task:
    """A cell to be measured.

    Attributes:
        op, dtype, layout, sizes: of the cell.
        work: multiplications or elements, by which the small ones come first.
        prepare: makes a function that makes a call of the operator; its way is taken when the call is made.
    """

    op: str
    dtype: str
    layout: str
    sizes: tuple[int, int]
    work: float
    prepare: Callable[[], Callable[[], Call]]


def calibrated(
    seconds: float = SECONDS,
    tasks: Sequence[Task] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Record:
    """Measures the operators on this machine, each way in turn, through the very calls that a network makes.

    Args:
        seconds: to spend at most, about; cells that are not reached are left out, those between others first.
        tasks: what to measure, all by default.
        report: is told how many cells are done, and of how many.

    Returns:
        The record, for the threads that torch has now.
    """
    waiting = coarse_first(grid() if tasks is None else tasks)
    machine, end = Machine.here(), time.monotonic() + seconds
    cells: list[Cell] = []
    for number, task in enumerate(waiting):
        if report is not None:
            report(number, len(waiting))
        left = end - time.monotonic()
        if left <= 0 and cells:
            break
        # About as long again goes into preparing and warming up.
        cells.append(_measured(task, 0.5 * left / (len(waiting) - number)))
    if report is not None:
        report(len(waiting), len(waiting))
    order = list(CHOSEN)
    cells.sort(key=lambda cell: (order.index(cell.op), cell.dtype, cell.layout, cell.sizes))
    return Record(machine, tuple(cells))


def coarse_first(tasks: Iterable[Task]) -> list[Task]:
    """Returns tasks in an order that ends well anywhere: of every operator, dtype and layout the smallest, then the
    largest, then those halfway between the ones before.
    """
    groups: dict[tuple[str, str, str], list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.work):
        groups.setdefault((task.op, task.dtype, task.layout), []).append(task)
    turns = [[group[place] for place in _halving(len(group))] for group in groups.values()]
    return [task for turn in zip_longest(*turns) for task in turn if task is not None]


def _halving(count: int) -> list[int]:
    """Places 0 to count - 1: the first, the last, the middle, the middles of what lies between, and so on."""
    found, spans = [0, count - 1], [(0, count - 1)]
    while spans:
        low, high = spans.pop(0)
        middle = (low + high) // 2
        if middle not in (low, high):
            found.append(middle)
            spans += [(low, middle), (middle, high)]
    return list(dict.fromkeys(found))


def _measured(task: Task, seconds: float) -> Cell:
    make = task.prepare()
    ways = {name: _taking(task.op, way) for name, way in NAMES.items()}
    with choice.forced({task.op: NATIVE}):
        calls = {}
        for name, take in ways.items():
            take()
            calls[name] = make()
        times = measure(calls, _CPU, max(seconds, 0.0), cold=False, least=3, before=ways)
    _, found, _ = ratio(times["pytorch"], times["native"])
    way = "native" if found >= 1 else "pytorch"
    return Cell(task.op, task.dtype, task.layout, task.sizes, round(found, 3), way)


def _taking(op: str, way: int) -> Callable[[], None]:
    return lambda: choice.force(op, way)


def grid() -> Iterator[Task]:
    """Yields all that is measured."""
    for dtype in DTYPES:
        yield from _attentions(dtype)
        yield from _tokens(dtype)
        for layout in _FORMATS:
            yield from _convolutions(dtype, layout)
            yield from _normalizations(dtype, layout)


def _attentions(dtype: str) -> Iterator[Task]:
    for layout, tokens, depth in product(("tokens", "map"), (16, 64, 256, 1024), (8, 32, 128)):
        for op in ("attention", "attention_backward"):
            backward = op == "attention_backward"
            work = (5.0 if backward else 2.0) * HEADS_DEPTH * tokens**2

            def prepare(
                layout: str = layout, tokens: int = tokens, depth: int = depth, backward: bool = backward
            ) -> Callable[[], Call]:
                heads = HEADS_DEPTH // depth
                shape = (1, tokens, 3, heads, depth) if layout == "tokens" else (1, 3, heads, depth, tokens)
                packed = _drawn(*shape, dtype=dtype)
                if layout == "tokens":
                    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind()
                else:
                    q, k, v = packed.transpose(-1, -2).unbind(1)
                if not backward:
                    return lambda: lambda: attention(q, k, v)
                return lambda: _gradient(attention, [q, k, v])

            yield Task(op, dtype, layout, (tokens, depth), work, prepare)


def _convolutions(dtype: str, layout: str) -> Iterator[Task]:
    for (batch, side), channels in product(((1, 8), (1, 16), (4, 16), (4, 32), (4, 64)), (16, 64, 128, 256)):
        if channels * side > 128 * 64:
            continue

        def prepare(batch: int = batch, side: int = side, channels: int = channels) -> Callable[[], Call]:
            x = _drawn(batch, channels, side, side, dtype=dtype).contiguous(memory_format=_FORMATS[layout])
            weight = _drawn(channels, channels, 3, 3, dtype=dtype) / (9 * channels) ** 0.5
            bias, filters = _drawn(channels, dtype=dtype), transformed(weight)

            def call() -> Tensor:
                with torch.no_grad():
                    return conv3x3(x, weight, bias, filters=filters)

            return lambda: call

        pixels = batch * side * side
        yield Task("conv3x3", dtype, layout, (pixels, channels), 9.0 * pixels * channels**2, prepare)


def _normalizations(dtype: str, layout: str) -> Iterator[Task]:
    for side, channels, op in product(
        (8, 16, 32, 64, 128), (128, 1024), ("group_norm_act", "group_norm_act_backward")
    ):
        batch = channels // 128
        if batch > 1 and side > 64:
            continue

        def prepare(
            side: int = side, batch: int = batch, backward: bool = op == "group_norm_act_backward"
        ) -> Callable[[], Call]:
            x = _drawn(batch, 128, side, side, dtype=dtype).contiguous(memory_format=_FORMATS[layout])
            weight, bias = 1 + 0.1 * _drawn(128, dtype=dtype), _drawn(128, dtype=dtype)

            def normalize(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return group_norm_act(x, GROUPS, weight, bias, silu=True)

            if not backward:
                return lambda: lambda: normalize(x, weight, bias)
            # The way of the gradient decides that of the forward pass, and what a training step pays for is both.
            return lambda: _both(normalize, [x, weight, bias])

        work = 30.0 * channels * side * side
        yield Task(op, dtype, layout, (side * side, channels), work, prepare)


def _tokens(dtype: str) -> Iterator[Task]:
    for op, layout, tokens, channels in product(
        ("layer_norm", "glu"), ("contiguous", "strided"), (64, 1024, 16384), (128, 1024)
    ):
        # A strided one has no native kernel of normalisation.
        if op == "layer_norm" and layout == "strided":
            continue
        for backward in (False, True):

            def prepare(
                op: str = op,
                layout: str = layout,
                tokens: int = tokens,
                channels: int = channels,
                backward: bool = backward,
            ) -> Callable[[], Call]:
                wide = channels + 8 if layout == "strided" else channels
                x = _drawn(1, tokens, wide, dtype=dtype)[..., :channels]
                function: Callable[..., Tensor] = glu if op == "glu" else _modulated
                given = [x] if op == "glu" else [x, *_drawn(2, 1, channels, dtype=dtype)]
                return lambda: _both(function, given) if backward else lambda: function(*given)

            yield Task(
                f"{op}_backward" if backward else op,
                dtype,
                layout,
                (channels, tokens),
                (20.0 + 20.0 * backward) * tokens * channels,
                prepare,
            )


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return layer_norm(x, scale=scale, shift=shift)


def _drawn(*shape: int, dtype: str) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))
    return drawn.to(getattr(torch, dtype))


def _gradient(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Call:
    """The gradient alone, of a forward pass that was made before."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        out = function(*leaves)
    dout = torch.empty_like(out).copy_(tensors[0])
    return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)


def _both(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Call:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.no_grad():
        dout = torch.ones_like(function(*tensors))

    def call() -> Any:
        with torch.enable_grad():
            return torch.autograd.grad(function(*leaves), leaves, dout)

    return call
