"""The native kernels: accurate, and the same bits on every instruction set and for every cut of the work."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.engine.noise import keyed_normal
from trilemma.numerics.normal import STEP
from trilemma.ops import explain, layout, linear_step

_C = pytest.importorskip("trilemma._C", reason="the native libraries were not built", exc_type=ImportError)

ISAS = _C.cpu_isas()


def test_philox_known_answers() -> None:
    assert _C.philox((0,) * 4, (0,) * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert _C.philox((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert _C.philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_normals_are_within_four_units_of_the_last_place() -> None:
    out = torch.empty(500, 2000)
    indices = torch.arange(500)
    assert explain("keyed_normal", out, indices, seed=0, step=0, stream=STEP).backend == "native"
    exact = keyed_normal(17, indices, 0, (2000,), dtype=torch.float64)
    drawn = keyed_normal(17, indices, 0, (2000,), out=out)
    assert ((drawn - exact).abs() <= 4 * 2.0**-23 * 2.0 ** exact.abs().log2().floor()).all()


def draw(isa: str, dtype: torch.dtype, samples: int, elements: int, cut: int) -> torch.Tensor:
    """Keyed normals made in two calls, blocks before and after the cut, the later first."""
    out = torch.empty(samples, elements, dtype=dtype)
    indices = torch.arange(samples) + 2**33
    for begin, end in ((cut, -1), (0, cut)):
        _C.normal(
            isa=isa,
            dtype=str(dtype).removeprefix("torch."),
            out=out.data_ptr(),
            indices=indices.data_ptr(),
            samples=samples,
            elements=elements,
            seed=5,
            begin=begin,
            end=end,
        )
    return out


@given(
    samples=st.integers(1, 4),
    elements=st.integers(1, 700),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    data=st.data(),
)
@settings(deadline=None)
def test_normals_have_the_same_bits_everywhere(
    samples: int, elements: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, samples * -(-elements // 256)))
    expected = keyed_normal(5, torch.arange(samples) + 2**33, 0, (elements,), STEP, dtype)
    for isa in ISAS:
        assert torch.equal(draw(isa, dtype, samples, elements, cut), expected), isa


@given(
    samples=st.integers(1, 4),
    elements=st.integers(1, 700),
    components=st.sampled_from([1, 2]),
    branches=st.integers(1, 4),
    lags=st.integers(0, 3),
    further=st.integers(0, layout.MAX_OTHERS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    clip=st.sampled_from([math.inf, 1.0]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@settings(deadline=None)
def test_steps_have_the_same_bits_everywhere(
    samples: int,
    elements: int,
    components: int,
    branches: int,
    lags: int,
    further: int,
    dtype: torch.dtype,
    clip: float,
    seed: int,
    data: st.DataObject,
) -> None:
    cut = data.draw(st.integers(0, samples * -(-elements // 256)))
    generator = torch.Generator().manual_seed(seed)
    columns = layout.Columns(components)
    z = torch.randn(samples, components * elements, generator=generator).to(dtype)
    output = torch.randn(branches * samples, elements, generator=generator).to(dtype)
    history = torch.randn(4, samples, elements, generator=generator).to(dtype)
    others = [
        torch.randn(samples, components * elements, generator=generator).to(dtype) for _ in range(further)
    ]
    table = torch.randn(1, columns.WIDTH, generator=generator, dtype=torch.float64)
    table[0, columns.CLIP] = clip
    indices = torch.arange(samples)
    expected, kept = torch.empty(branches * samples, components * elements, dtype=dtype), history.clone()
    linear_step(
        expected,
        z,
        z,
        output,
        table,
        0,
        history=kept,
        write_slot=3,
        read_slots=range(lags),
        seed=seed,
        indices=indices,
        others=others,
    )
    for isa in ISAS:
        out, ring = torch.empty_like(expected), history.clone()
        for begin, end in ((cut, -1), (0, cut)):
            _C.linear_step(
                isa=isa,
                dtype=str(dtype).removeprefix("torch."),
                out=out.data_ptr(),
                z=z.data_ptr(),
                base=z.data_ptr(),
                output=output.data_ptr(),
                row=table[0].tolist(),
                samples=samples,
                elements=elements,
                replicas=branches,
                branches=branches,
                prediction=ring[3].data_ptr(),
                history=[ring[lag].data_ptr() for lag in range(lags)],
                indices=indices.data_ptr(),
                seed=seed,
                others=[other.data_ptr() for other in others],
                begin=begin,
                end=end,
            )
        assert torch.equal(out, expected), isa
        assert torch.equal(ring, kept), isa


def test_threads_do_not_change_a_bit() -> None:
    threads = torch.get_num_threads()
    try:
        drawn = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            drawn.append(keyed_normal(3, torch.arange(64), 0, (3, 32, 32)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_allocates_nothing() -> None:
    z, output, out = torch.randn(8, 3, 64, 64), torch.randn(16, 3, 64, 64), torch.empty(16, 3, 64, 64)
    table = torch.ones(1, layout.WIDTH, dtype=torch.float64)
    indices = torch.arange(8)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        linear_step(out, z, z, output, table, 0, indices=indices)
    names = {event.name for event in profile.events()}
    assert "trilemma::linear_step" in names
    assert not {name for name in names if name.startswith("aten::")}
    assert not [event for event in profile.events() if event.name == "[memory]"]


def test_build_information() -> None:
    info = _C.build_info()
    assert info["isas"][0] == "baseline"
    assert _C.cpu_isa() == ISAS[-1]
    assert info["compiler"]
    assert info["torch"].split("+")[0].count(".") == 2
