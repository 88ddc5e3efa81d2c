"""The 3×3 convolution against the direct sum in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import conv3x3, explain, native
from trilemma.ops.convolution import transformed

needs_native = pytest.mark.skipif(bool(native.load()), reason="the native libraries were not built")
# Half the distance between neighbours, relative; zero where the arithmetic itself is bounded.
STORAGE = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Of float32, relative to the largest magnitudes of x that a tile sees times all of a filter's: the transforms mix them.
# Twice the most that was seen, which is 19 · 2⁻²⁴ with one channel and falls as the channels' roundings average out.
ARITHMETIC = 38 * 2.0**-24
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def arguments(
    shape: tuple[int, int, int, int],
    channels: int,
    dtype: torch.dtype,
    layout: str,
    with_bias: bool = True,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=FORMATS[layout])
    weight = torch.randn(channels, shape[1], 3, 3, generator=generator).to(dtype)
    bias = torch.randn(channels, generator=generator).to(dtype) if with_bias else None
    return x, weight, bias


def assert_close(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """To the storage's rounding and to `ARITHMETIC` of what the transforms add up."""
    offset = None if bias is None else bias.double()
    expected = torch.conv2d(x.double(), weight.double(), offset, padding=1)
    tile = torch.zeros_like(expected)
    if expected.numel():
        seen = torch.max_pool2d(x.double().abs(), 11, stride=1, padding=5)
        tile = torch.conv2d(seen, weight.double().abs().sum((2, 3), keepdim=True))
    if offset is not None:
        tile += offset.abs()[:, None, None]
    bound = STORAGE[x.dtype] * expected.abs() + ARITHMETIC * tile + 2.0**-24
    assert found.dtype == x.dtype
    assert found.shape == expected.shape
    assert ((found.double() - expected).abs() <= bound).all()


SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 19), st.integers(1, 37))
CASES = {
    "shape": SHAPES,
    "channels": st.integers(1, 70),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    "layout": st.sampled_from(list(FORMATS)),
    "with_bias": st.booleans(),
    "seed": st.integers(0, 2**30),
}


def equation(
    shape: tuple[int, int, int, int],
    channels: int,
    dtype: torch.dtype,
    layout: str,
    with_bias: bool,
    seed: int,
) -> None:
    x, weight, bias = arguments(shape, channels, dtype, layout, with_bias, seed)
    assert_close(conv3x3(x, weight, bias), x, weight, bias)


test_equation = settings(deadline=None)(given(**CASES)(equation))
test_two_thousand_more = pytest.mark.slow(
    settings(deadline=None, max_examples=2000)(given(**CASES)(equation))
)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((2, 64, 32, 32), 64), ((1, 130, 8, 8), 260), ((1, 3, 5, 300), 33), ((5, 300, 4, 4), 3)],
)
def test_many_tiles_and_channels(
    shape: tuple[int, int, int, int], channels: int, dtype: torch.dtype, layout: str
) -> None:
    x, weight, bias = arguments(shape, channels, dtype, layout)
    y = conv3x3(x, weight, bias)
    assert_close(y, x, weight, bias)
    assert y.is_contiguous(memory_format=FORMATS[layout])


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_instruction_set_and_any_cut_of_the_work(dtype: str, channels_last: bool) -> None:
    from trilemma import _C

    layout = "channels-last" if channels_last else "contiguous"
    x, weight, bias = arguments((3, 21, 14, 18), 75, getattr(torch, dtype), layout)
    assert bias is not None
    filters, offset = transformed(weight), bias.float()
    for isa in _C.cpu_isas():
        results = []
        for splits in (1, 3):
            y = conv3x3(x, weight, bias).fill_(torch.nan)
            for item in reversed(range(3 * 8)):  # more than there are: the kernel is only asked for its own
                sizes = [3, 21, 75, 14, 18]
                tiles = 3 * 4 * 5
                block = min(64, max(8, 2048 // 21 // 8 * 8))
                if item < -(-tiles // block) * splits:
                    _C.conv3x3(
                        isa=isa,
                        dtype=dtype,
                        sizes=sizes,
                        channels_last=channels_last,
                        x=x.data_ptr(),
                        filters=filters.data_ptr(),
                        bias=offset.data_ptr(),
                        y=y.data_ptr(),
                        splits=splits,
                        begin=item,
                        end=item + 1,
                    )
            assert_close(y, x, weight, bias)
            results.append(y)
        assert torch.equal(*results)


@pytest.mark.parametrize("shape", [(0, 8, 6, 6), (2, 8, 0, 6)])
def test_empty(shape: tuple[int, int, int, int]) -> None:
    x, weight, bias = arguments(shape, 4, torch.float32, "contiguous")
    if 0 in shape[2:]:
        assert conv3x3(x, weight, bias).shape == (shape[0], 4, *shape[2:])
    else:
        assert_close(conv3x3(x, weight, bias), x, weight, bias)


def test_the_image_ends_where_it_ends() -> None:
    """A kernel that reads beside a pixel shows the zeros around the image at each of its edges, and nothing else."""
    x = torch.ones(1, 1, 6, 7)
    for row in range(3):
        for column in range(3):
            weight = torch.zeros(1, 1, 3, 3)
            weight[0, 0, row, column] = 1
            expected = torch.conv2d(x, weight, padding=1)
            torch.testing.assert_close(conv3x3(x, weight), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_tiles(value: float) -> None:
    x, weight, bias = arguments((1, 8, 16, 16), 8, torch.float32, "contiguous")
    expected = conv3x3(x, weight, bias)
    x[0, 3, 1, 1] = value
    found = conv3x3(x, weight, bias)
    assert not found[0, :, :3, :3].isfinite().any()
    assert torch.equal(found[0, :, 8:, 8:], expected[0, :, 8:, 8:])


def test_gradients() -> None:
    x, weight, bias = arguments((2, 3, 5, 4), 2, torch.float64, "contiguous")
    assert bias is not None
    inputs = tuple(tensor.requires_grad_() for tensor in (x, weight, bias))
    assert torch.autograd.gradcheck(conv3x3, inputs)
    mixed = arguments((2, 9, 6, 6), 4, torch.float32, "contiguous")
    own = [tensor.clone().requires_grad_() for tensor in mixed if tensor is not None]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in own]
    conv3x3(*own).sum().backward()  # an expanded gradient
    torch.conv2d(*theirs, padding=1).sum().backward()
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("layout", FORMATS)
def test_opcheck(layout: str) -> None:
    x, weight, bias = arguments((2, 9, 6, 7), 4, torch.float32, layout)
    torch.library.opcheck(torch.ops.trilemma.conv3x3.default, (x, weight, bias, transformed(weight)))
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    torch.library.opcheck(torch.ops.trilemma.conv3x3.default, (leaf, weight, bias, transformed(weight)))


@needs_native
def test_what_does_not_run_natively_says_why_and_is_right() -> None:
    x, weight, bias = arguments((2, 8, 6, 6), 4, torch.float32, "contiguous")
    strided = x.transpose(2, 3)
    assert_close(conv3x3(strided, weight, bias), strided, weight, bias)
    filters = transformed(weight)
    assert "neither contiguous" in explain("conv3x3", strided, weight, bias, filters).passed_over["native"]
    assert explain("conv3x3", x, weight, bias, filters).backend == "native"
    wide = conv3x3(x.double(), weight.double())
    torch.testing.assert_close(wide, torch.conv2d(x.double(), weight.double(), padding=1))


def test_native_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    x, weight, bias = arguments((2, 8, 6, 6), 4, torch.float64, "contiguous")
    with pytest.raises(TrilemmaError, match="conv3x3 cannot run natively"):
        conv3x3(x, weight, bias)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(2, 8, 6)}, "expected a floating-point"),
        ({"x": torch.zeros(2, 7, 6, 6)}, r"weight has shape \(4, 8, 3, 3\); expected \[K, 7, 3, 3\]"),
        ({"weight": torch.zeros(4, 8, 3, 1)}, "weight has shape"),
        ({"bias": torch.zeros(5)}, r"bias has shape \(5,\); expected \(4,\)"),
        ({"filters": torch.zeros(7)}, "expected transformed"),
        ({"bias": torch.zeros(4, device="meta")}, "bias is on meta"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], message: str) -> None:
    x, weight, bias = arguments((2, 8, 6, 6), 4, torch.float32, "contiguous")
    given_ = {"x": x, "weight": weight, "bias": bias, "filters": transformed(weight), **changed}
    with pytest.raises(UsageError, match=message):
        conv3x3(given_["x"], given_["weight"], given_["bias"], filters=given_["filters"])
