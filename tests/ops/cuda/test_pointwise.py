"""The step, the normals, the noising and the thresholding for CUDA: the bits of the CPU's kernels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma.numerics.normal import STEP
from trilemma.ops import layout

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Whole 16-byte words, elements that are no multiple of them, and more than a grid of the emulator.
SHAPES = [(3, 2, 8, 8), (2, 2, 5, 7), (1, 2), (5, 4, 33), (2, 2, 64, 96)]


def native(operator: str, *arguments: Any) -> Any:
    return getattr(torch.ops.trilemma, operator)(*arguments, backend="native")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_the_bits_of_the_cpu(device: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    indices = torch.arange(shape[0]) * 3 + 2**33
    drawn, expected = torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    device("keyed_normal", drawn, indices, -5, 7, STEP)
    native("keyed_normal", expected, indices, -5, 7, STEP)
    assert torch.equal(drawn, expected)


def step_arguments(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    components: int = 1,
    branches: int = 1,
    replicas: int = 1,
    lags: int = 0,
    others: int = 0,
    write_slot: int = -1,
    noise: str = "none",
    clip: float = math.inf,
    offset: int = 0,
) -> list[Any]:
    """Arguments of linear_step; with an offset, tensors that begin where no 16-byte word does."""
    generator = torch.Generator().manual_seed(math.prod(shape) + branches)
    columns = {1: layout.ONE_COMPONENT, 2: layout.TWO_COMPONENTS}[components]

    def normal(*size: int) -> Tensor:
        flat = torch.randn(math.prod(size) + offset, generator=generator).to(dtype)
        return flat[offset:].view(size)

    batch, channels, *space = shape
    table = torch.randn(3, columns.WIDTH, generator=generator, dtype=torch.float64)
    table[:, columns.CLIP] = clip
    if noise == "none":
        table[:, columns.C] = 0
    predicted = (channels // components, *space)
    return [
        torch.full((replicas * batch, channels, *space), math.nan, dtype=dtype),
        normal(*shape),
        normal(*shape),
        normal(branches * batch, *predicted) if branches else None,
        table,
        1,
        normal(8, batch, *predicted),
        write_slot,
        list(range(lags)),
        11,
        torch.arange(batch) + 5 if noise != "given" else None,
        normal(*shape) if noise == "given" else None,
        torch.full((batch,), -1, dtype=torch.int32),
        [normal(*shape) for _ in range(others)],
    ]


def same_step(device: Any, arguments: list[Any]) -> None:
    expected = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    device("linear_step", *arguments)
    native("linear_step", *expected)
    for which in (0, 6, 12):
        assert torch.equal(arguments[which], expected[which])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_the_bits_of_the_cpu(
    device: Any, shape: tuple[int, ...], components: int, dtype: torch.dtype
) -> None:
    options = itertools.product(
        ["none", "given", "keyed"], [(1, 0, 0), (2, 3, 1), (4, 7, 3), (0, 1, 2)], [0, 1]
    )
    for number, (noise, (branches, lags, others), offset) in enumerate(options):
        arguments = step_arguments(
            shape,
            dtype,
            components=components,
            branches=branches,
            replicas=1 + number % 3,
            lags=lags,
            others=others,
            write_slot=2 if number % 2 else -1,
            noise=noise,
            clip=1.0 if number % 2 else math.inf,
            offset=offset,
        )
        same_step(device, arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_writes_over_its_inputs(device: Any, dtype: torch.dtype) -> None:
    arguments = step_arguments((2, 2, 8, 8), dtype, branches=2, replicas=2, noise="keyed")
    expected = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    state = torch.cat([arguments[1], arguments[1]])
    if device.name == "cuda":
        state, held = state.cuda(), [x.cuda() if isinstance(x, Tensor) else x for x in arguments]
        held[4] = arguments[4]
    else:
        held = arguments
    held[0], held[1], held[2] = state, state[:2], state[:2]
    expected[2] = expected[1]
    device.operators.linear_step(*held, backend="native")
    native("linear_step", *expected)
    assert torch.equal(state.cpu(), expected[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("components", [1, 2])
def test_a_replayed_step_reads_its_row_and_seed_on_the_device(
    device: Any, components: int, dtype: torch.dtype
) -> None:
    for row, seed in ((0, 11), (2, -7)):
        arguments = step_arguments(
            (2, 2, 8, 8), dtype, components=components, lags=2, others=1, noise="keyed"
        )
        narrow = arguments[4].float()
        expected = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
        expected[4], expected[5], expected[9] = narrow.double(), row, seed
        arguments[4], arguments[5], arguments[9] = narrow, torch.tensor(row), torch.tensor(seed)
        device("linear_step_replay", *arguments)
        native("linear_step", *expected)
        assert torch.equal(arguments[0], expected[0])


@pytest.mark.cuda
def test_a_captured_step_replays_with_fresh_noise() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU")
    arguments = step_arguments((2, 2, 8, 8), torch.float32, noise="keyed")
    expected = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    held = [argument.cuda() if isinstance(argument, Tensor) else argument for argument in arguments]
    row, seed = torch.tensor(0, device="cuda"), torch.tensor(0, device="cuda")
    held[4], held[5], held[9] = arguments[4].float().cuda(), row, seed
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.ops.trilemma.linear_step_replay(*held, backend="native")
    for step, key in ((0, 3), (1, 3), (1, 4)):
        row.fill_(step)
        seed.fill_(key)
        graph.replay()
        expected[4], expected[5], expected[9] = arguments[4].float().double(), step, key
        native("linear_step", *expected)
        assert torch.equal(held[0].cpu(), expected[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 7])
def test_a_step_names_the_row_that_broke_a_sample(device: Any, dtype: torch.dtype, width: int) -> None:
    arguments = step_arguments((4, 2, 8, width), dtype)
    arguments[1][1, 0, 3, 2] = math.nan
    arguments[3][2, 1, 7, 6] = math.inf
    arguments[12][2] = 0
    device("linear_step", *arguments)
    assert arguments[12].tolist() == [-1, 1, 0, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_perturb_is_the_bits_of_the_cpu(
    device: Any, shape: tuple[int, ...], given: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(shape, generator=generator).to(dtype)
    noise = torch.randn(shape, generator=generator).to(dtype) if given else None
    coefficients = torch.randn(shape[0], 4, generator=generator, dtype=torch.float64)
    arguments = (x0, coefficients, 3, 4, torch.arange(shape[0]) + 9, noise)
    for found, expected in zip(device("perturb", *arguments), native("perturb", *arguments), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("shape", [(3, 2, 32, 32), (2, 9, 11), (4, 1), (1, 3, 64, 64)])
def test_dynamic_thresholds_are_the_bits_of_the_cpu(
    device: Any, shape: tuple[int, ...], quantile: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = (
        torch.randn(shape, generator=generator)
        * torch.logspace(-2, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
    ).to(dtype)
    found, expected = torch.empty_like(x), torch.empty_like(x)
    native("dynamic_threshold", expected, x, quantile, 0.5)
    for order in range(2):
        device.set_order(order)
        device("dynamic_threshold", found, x, quantile, 0.5)
        assert torch.equal(found, expected)


def test_a_number_that_is_none_spoils_its_sample_alone(device: Any) -> None:
    x = torch.randn(3, 2, 9, 9)
    x[1, 0, 4, 4] = math.nan
    out = torch.empty_like(x)
    device("dynamic_threshold", out, x, 0.9, 1.0)
    assert out.flatten(1).isnan().all(1).tolist() == [False, True, False]
    assert out.flatten(1).isnan().any(1).tolist() == [False, True, False]
