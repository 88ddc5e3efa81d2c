"""Kernels on tensors of more than 2³¹ elements: the last block of each, so that only its pages are touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.engine.noise import keyed_normal
from trilemma.numerics.normal import STEP
from trilemma.ops import attention, conv3x3, dynamic_threshold, group_norm_act, layout, linear_step
from trilemma.ops.convolution import transformed

_C = pytest.importorskip("trilemma._C", reason="the native libraries were not built", exc_type=ImportError)

ISAS = _C.cpu_isas()
PAST_INT32 = 2**31 + 2**12
SAMPLES, ELEMENTS = 3, PAST_INT32 // 2  # the third sample begins beyond
BLOCK = 256


def sparse(*size: int) -> Tensor:
    """bfloat16 that nothing is written to: only the address space is taken."""
    try:
        return torch.empty(*size, dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"this machine does not give out so large a tensor: {error}")


@pytest.mark.parametrize("isa", ISAS)
def test_normal(isa: str) -> None:
    out, indices = sparse(SAMPLES, ELEMENTS), torch.arange(SAMPLES)
    first = SAMPLES // 3 * 2 * -(-ELEMENTS // BLOCK)
    _C.normal(
        isa=isa,
        dtype="bfloat16",
        out=out.data_ptr(),
        indices=indices.data_ptr(),
        samples=SAMPLES,
        elements=ELEMENTS,
        seed=5,
        begin=first,
        end=first + 1,
    )
    expected = keyed_normal(5, indices[2:], 0, (BLOCK,), STEP, torch.bfloat16)
    assert torch.equal(out[2:, :BLOCK], expected)


@pytest.mark.parametrize("isa", ISAS)
def test_linear_step(isa: str) -> None:
    table = torch.zeros(4, layout.WIDTH, dtype=torch.float64)
    row = table[3]
    row[layout.A], row[layout.C], row[layout.R], row[layout.W.start] = 0.5, 0.25, 1.0, 1.0
    row[layout.Q] = 1.0
    row[layout.B.start], row[layout.CLIP] = 2.0, torch.inf
    generator = torch.Generator().manual_seed(0)
    z, output, out = (sparse(SAMPLES, ELEMENTS) for _ in range(3))
    for tensor in (z, output):
        tensor[2, :BLOCK] = torch.randn(BLOCK, generator=generator)
    indices = torch.arange(SAMPLES)
    first = 2 * -(-ELEMENTS // BLOCK)
    _C.linear_step(
        isa=isa,
        dtype="bfloat16",
        out=out.data_ptr(),
        z=z.data_ptr(),
        base=z.data_ptr(),
        output=output.data_ptr(),
        row=row.tolist(),
        samples=SAMPLES,
        elements=ELEMENTS,
        indices=indices.data_ptr(),
        seed=7,
        step=3,
        begin=first,
        end=first + 1,
    )
    small = torch.empty(1, BLOCK, dtype=torch.bfloat16)
    linear_step(
        small,
        z[2:, :BLOCK].clone(),
        z[2:, :BLOCK].clone(),
        output[2:, :BLOCK].clone(),
        table,
        3,
        indices=indices[2:],
        seed=7,
    )
    assert torch.equal(out[2:, :BLOCK], small)


@pytest.mark.parametrize("isa", ISAS)
def test_perturb(isa: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise, z, target = (sparse(SAMPLES, ELEMENTS) for _ in range(4))
    for tensor in (x0, noise):
        tensor[2, :BLOCK] = torch.randn(BLOCK, generator=generator)
    coefficients = torch.tensor([[0.6, 0.8, -0.8, 0.6]], dtype=torch.float64).repeat(SAMPLES, 1)
    first = 2 * -(-ELEMENTS // BLOCK)
    _C.perturb(
        isa=isa,
        dtype="bfloat16",
        z=z.data_ptr(),
        target=target.data_ptr(),
        x0=x0.data_ptr(),
        noise=noise.data_ptr(),
        coefficients=coefficients.data_ptr(),
        samples=SAMPLES,
        elements=ELEMENTS,
        begin=first,
        end=first + 1,
    )
    clean, xi = x0[2, :BLOCK].float(), noise[2, :BLOCK].float()
    torch.testing.assert_close(z[2, :BLOCK].float(), 0.6 * clean + 0.8 * xi, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(target[2, :BLOCK].float(), 0.6 * xi - 0.8 * clean, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_dynamic_threshold(isa: str) -> None:
    samples = PAST_INT32 // BLOCK + 1
    x, out = sparse(samples, BLOCK), sparse(samples, BLOCK)
    x[-1] = 3 * torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    _C.dynamic_threshold(
        isa=isa,
        dtype="bfloat16",
        out=out.data_ptr(),
        x=x.data_ptr(),
        samples=samples,
        elements=BLOCK,
        begin=samples - 1,
    )
    torch.testing.assert_close(out[-1:], dynamic_threshold(x[-1:]))


@pytest.mark.parametrize("isa", ISAS)
def test_group_norm(isa: str) -> None:
    batch, channels, spatial = 9, 256, 2**20
    x, y = sparse(batch, channels, spatial), sparse(batch, channels, spatial)
    x[-1, -1] = torch.randn(spatial, generator=torch.Generator().manual_seed(0))
    mean, rstd = torch.empty(batch, channels), torch.empty(batch, channels)
    _C.group_norm(
        isa=isa,
        dtype="bfloat16",
        sizes=[batch, channels, spatial, channels],
        channels_last=False,
        silu=True,
        eps=1e-5,
        x=x.data_ptr(),
        mean=mean.data_ptr(),
        rstd=rstd.data_ptr(),
        y=y.data_ptr(),
        begin=batch * channels - 1,
    )
    expected = F.silu(F.group_norm(x[-1:, -1:].float(), 1))
    torch.testing.assert_close(y[-1:, -1:].float(), expected, rtol=2**-8, atol=1e-5)
    torch.testing.assert_close(y[-1:, -1:], group_norm_act(x[-1:, -1:], 1, silu=True), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_attention(isa: str) -> None:
    tokens, depth = 16, 8
    generator = torch.Generator().manual_seed(0)

    def far() -> Tensor:
        """[2, 1, tokens, depth], the second sample 2³¹ elements behind the first."""
        view = sparse(PAST_INT32).as_strided((2, 1, tokens, depth), (2**31, tokens * depth, depth, 1))
        view[1] = torch.randn(1, tokens, depth, generator=generator)
        return view

    q, k, v, out = (far() for _ in range(4))
    logsumexp = torch.empty(2, 1, tokens)
    where = {
        name: (tensor.data_ptr(), *tensor.stride())
        for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out))
    }
    _C.attention(
        isa=isa,
        dtype="bfloat16",
        sizes=[2, 1, tokens, tokens, depth],
        scale=depth**-0.5,
        **where,
        lse=logsumexp.data_ptr(),
        begin=1,
        end=2,
    )
    expected = attention(*(tensor[1:].float() for tensor in (q, k, v)))
    torch.testing.assert_close(out[1:].float(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_conv3x3(isa: str, channels_last: bool) -> None:
    batch, channels, height, width = 4, 8, 9000, 10_000  # the fourth begins beyond
    generator = torch.Generator().manual_seed(0)

    def image() -> Tensor:
        sizes = (batch, height, width, channels) if channels_last else (batch, channels, height, width)
        return sparse(*sizes).permute(0, 3, 1, 2) if channels_last else sparse(*sizes)

    x, y = image(), image()
    corner = (slice(-1, None), slice(None), slice(-8, None), slice(-400, None))
    x[corner] = torch.randn(1, channels, 8, 400, generator=generator).bfloat16()
    weight = torch.randn(channels, channels, 3, 3, generator=generator)
    filters = transformed(weight)
    tiles, block = batch * (height // 4) * (width // 4), 64
    items = -(-tiles // block)
    _C.conv3x3(
        isa=isa,
        dtype="bfloat16",
        sizes=[batch, channels, channels, height, width],
        channels_last=channels_last,
        x=x.data_ptr(),
        filters=filters.data_ptr(),
        bias=0,
        y=y.data_ptr(),
        begin=items - 1,
        end=items,
    )
    done = 4 * (tiles - (items - 1) * block)  # columns of the last block
    expected = conv3x3(x[corner].float().contiguous(), weight)[..., -4:, -done + 4 :]
    found = y[..., -4:, -done + 4 :][-1:].float()
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-2)
