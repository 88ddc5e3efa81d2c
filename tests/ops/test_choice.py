"""One choice between a kernel of ours and PyTorch's: of the calibration, else of the level's record, else careful."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.machine import processor
from trilemma.ops import attention, choice, conv3x3, explain, glu, group_norm_act, layer_norm, native
from trilemma.ops.choice import CHOSEN, NATIVE, PYTORCH, Cell, Machine, Record, deciding
from trilemma.ops.choice import record as records
from trilemma.ops.choice.deciding import look_up
from trilemma.ops.choice.ways import DTYPES, NAMES, POWERS, UNMEASURED, place

needs_native = pytest.mark.skipif(bool(native.load()), reason=native.load())
ELSEWHERE = Machine("a model", "x86-64-v4-bf16", "2.13.0", 2)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder without a calibration; afterwards the choice of before."""
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path))
    monkeypatch.delenv("TRILEMMA_CALIBRATION", raising=False)
    monkeypatch.delenv("TRILEMMA_BACKEND", raising=False)
    choice.forget()
    yield tmp_path
    monkeypatch.undo()
    choice.forget()
    choice.prepared()


def cell(op: str = "attention", way: str = "pytorch", **changes: Any) -> Cell:
    given = {"dtype": "float32", "layout": CHOSEN[op].layouts[0], "sizes": (64, 32), "ratio": 0.5, **changes}
    return Cell(op, way=way, **given)


def written(*cells: Cell, machine: Machine | None = None, path: Path | None = None) -> Path:
    record = Record(machine or Machine.here(), cells)
    path = path or record.machine.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.text())
    return path


def group(found: choice.InForce, op: str, dtype: str = "float32", layout: int = 0) -> set[int]:
    """The ways that a choice takes for an operator, dtype and layout."""
    begin = place(DTYPES.index(dtype), layout, 1, 1)
    return set(found.tables[op][begin : begin + POWERS * POWERS])


def test_the_calibration_comes_before_the_record_and_that_before_the_careful_way() -> None:
    written(cell(layout="map"), machine=ELSEWHERE)
    found, without = look_up("", ELSEWHERE), look_up("off", ELSEWHERE)
    assert (found.source, without.source) == ("calibration", "shipped")
    assert group(found, "attention") == {PYTORCH}
    assert group(without, "attention") == {NATIVE}
    # The groups that were not calibrated are the record's, and what that has not is native but for attention.
    assert group(found, "attention_backward", "bfloat16") == {NATIVE, PYTORCH}
    assert found.tables["attention_backward"] == without.tables["attention_backward"]
    assert group(found, "conv3x3") == {NATIVE}
    careful = look_up("", replace(ELSEWHERE, level="x86-64-v3"))
    assert careful.source == "default"
    assert [group(careful, op) for op in ("attention", "conv3x3")] == [{UNMEASURED}, {NATIVE}]


@pytest.mark.parametrize(
    "change", [{"cpu": "another"}, {"level": "x86-64-v3"}, {"torch": "2.12.0"}, {"threads": 1}]
)
def test_a_calibration_holds_for_one_cpu_level_torch_and_number_of_threads(
    change: dict[str, Any], tmp_path: Path
) -> None:
    other = replace(ELSEWHERE, **change)
    assert other.file != ELSEWHERE.file
    path = written(cell(), machine=other, path=tmp_path / "other.json")
    found = look_up(str(path), ELSEWHERE)
    assert found == replace(look_up("off", ELSEWHERE), problem=found.problem)
    assert f"is for {next(iter(change))} {next(iter(change.values()))}" in found.problem


def damage(**changes: Any) -> str:
    return json.dumps({**json.loads(Record(ELSEWHERE, (cell(),)).text()), **changes})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no calibration"),
        (damage(version=2).encode(), "has version 2, not 1"),
        (damage(machine={"cpu": "x"}).encode(), "is damaged"),
        (damage(cells=[{"op": "attention"}]).encode(), "is damaged"),
        (damage(cells=3).encode(), "is damaged"),
        (Record(ELSEWHERE, (cell(),)).text().replace('"map"', '"row"').encode(), "is damaged"),
        (Record(ELSEWHERE, (cell(),)).text().replace("[64, 32]", "[0, 32]").encode(), "is damaged"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_used_is_passed_over_in_one_line(
    content: bytes | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("TRILEMMA_CALIBRATION", str(path))
    with warnings.catch_warnings():
        # As an import looks it up.
        warnings.simplefilter("error")
        assert choice.prepared().source != "calibration"
    with pytest.warns(UserWarning, match=why) as caught:
        choice.in_force()
    (line,) = {str(warning.message) for warning in caught}
    assert "\n" not in line
    assert len(line) < 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice.in_force()


@needs_native
def test_an_older_native_library_is_told_nothing_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "_is_told", lambda: False)
    with choice.forced({"attention": NATIVE}), pytest.warns(UserWarning, match="install trilemma again"):
        choice.in_force()


def test_another_number_of_threads_is_looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine.here()
    written(cell(), machine=replace(here, threads=7))
    assert choice.in_force().source != "calibration"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert choice.in_force().source == "calibration"
    monkeypatch.setenv("TRILEMMA_CALIBRATION", "off")
    assert choice.in_force().source != "calibration"


def test_one_record_makes_one_choice() -> None:
    path = written(cell(), cell("conv3x3", "native"), machine=ELSEWHERE)
    record = Record.read(path)
    assert Record.read(path) == record
    assert record.text() == path.read_text()
    first = look_up("", ELSEWHERE)
    assert look_up(str(path), ELSEWHERE).digest == first.digest
    written(cell(), cell("conv3x3", "pytorch"), machine=ELSEWHERE)
    assert look_up("", ELSEWHERE).digest != first.digest


def test_a_size_is_decided_by_the_nearest_cell() -> None:
    written(
        cell("conv3x3", "pytorch", sizes=(64, 16)),
        cell("conv3x3", "native", sizes=(4096, 16)),
    )
    choice.in_force()
    weight = torch.zeros(16, 16, 3, 3)
    for side, left in ((4, True), (8, True), (16, True), (32, False), (64, False)):
        x = torch.zeros(1, 16, side, side)
        assert bool(choice.why_left("conv3x3", x.dtype, 0, side**4, 16**2)) == left
        filters = torch.zeros(36 * 16 * 16)
        if not native.load():
            assert explain("conv3x3", x, weight, None, filters).backend == ("reference" if left else "native")


def test_a_size_counts_by_the_nearest_power_of_two() -> None:
    for size in (*range(1, 200), 2**20 + 1, 2**40):
        power = min(math.floor(math.log2(size) + 0.5), POWERS - 1)
        assert place(0, 0, size**2, 1) == power * POWERS
        assert place(1, 1, 1, size**2) == 3 * POWERS**2 + power


@needs_native
def test_the_native_library_looks_up_the_same_table() -> None:
    """Every other power of two is left to PyTorch, in one dtype and layout."""
    ways = ("native", "pytorch")
    written(*(cell(way=ways[power % 2], sizes=(2**power, 8), dtype="float16") for power in range(8)))
    table = choice.in_force().tables["attention"]
    for tokens in range(1, 130, 3):
        q = torch.zeros(1, 1, 8, tokens, dtype=torch.float16).transpose(2, 3)
        left = table[place(2, int(q.stride(3) == 1), tokens**2, 8**2)] != NATIVE
        assert explain("attention", q, q, q, None).backend == ("reference" if left else "native")
    assert explain("attention", *[torch.zeros(1, 1, 8, 8)] * 3, None).passed_over != {}


def operators(call: Callable[[], object]) -> set[str]:
    """The operators that a call runs, as PyTorch's profiler sees them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        call()
    return {event.name for event in seen.events()}


def calls() -> dict[str, tuple[Callable[[], object], str, tuple[int, int]]]:
    """By operator a call, PyTorch's operator for it, and its sizes."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    q, x = drawn(1, 16, 2, 8).transpose(1, 2), drawn(2, 32, 4, 4)
    weight, scales = drawn(16, 32, 3, 3), drawn(32)
    leaf = x.clone().requires_grad_()

    def step(function: Callable[[Tensor], Tensor]) -> None:
        with torch.enable_grad():
            torch.autograd.grad(function(leaf).sum(), leaf)

    return {
        "attention": (
            lambda: attention(q, q, q),
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            (16, 8),
        ),
        "conv3x3": (lambda: conv3x3(x, weight), "aten::conv2d", (32, 23)),
        "group_norm_act": (
            lambda: group_norm_act(x, 4, scales, silu=True),
            "aten::native_group_norm",
            (16, 64),
        ),
        "group_norm_act_backward": (
            lambda: step(lambda x: group_norm_act(x, 4, scales, silu=True)),
            "aten::native_group_norm_backward",
            (16, 64),
        ),
        "layer_norm": (lambda: layer_norm(x), "aten::native_layer_norm", (4, 256)),
        "layer_norm_backward": (lambda: step(layer_norm), "aten::native_layer_norm_backward", (4, 256)),
        "glu": (lambda: glu(x), "aten::gelu", (4, 256)),
        "glu_backward": (lambda: step(glu), "aten::gelu_backward", (4, 256)),
    }


@needs_native
@pytest.mark.parametrize("way", NAMES)
@pytest.mark.parametrize("op", calls())
def test_a_record_changes_what_runs(op: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, theirs, sizes = calls()[op]
    layout = "tokens" if op == "attention" else "contiguous"
    written(cell(op, way, sizes=sizes, layout=layout))
    assert choice.in_force().source == "calibration"
    ran = operators(call)
    assert (theirs in ran) == (way == "pytorch")
    if op != "attention":
        # Which hands over from inside.
        assert (f"trilemma::{op}" in ran) == (way == "native")
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    assert theirs not in operators(call)


def test_without_a_calibration_nothing_is_left_that_was_native() -> None:
    found = choice.in_force()
    assert all(group(found, op, dtype, layout) == {NATIVE} for op in CHOSEN if not CHOSEN[op].natively
               for dtype in DTYPES for layout in (0, 1))  # fmt: skip
    assert not any(choice.chooses(op) for op in CHOSEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_both_ways_of_a_normalization_agree(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    x, residual = (drawn(2, 8, 4, 4).contiguous(memory_format=memory_format) for _ in range(2))
    tensors = [x, drawn(8), drawn(8), drawn(2, 8), drawn(2, 8), residual]

    def results(way: int) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        x, weight, bias, scale, shift, residual = leaves
        with choice.forced({"group_norm_act": way, "group_norm_act_backward": way}):
            y = group_norm_act(x, 4, weight, bias, scale=scale, shift=shift, residual=residual, silu=True)
            with torch.no_grad():
                plain = group_norm_act(x, 4, weight, bias)
            assert y.stride() == plain.stride() == x.stride()
            return [y.detach(), plain, *torch.autograd.grad(y.square().sum(), leaves)]

    bound = 1e-5 if dtype == torch.float32 else 0.1
    for one, other in zip(results(NATIVE), results(PYTORCH), strict=True):
        assert (one - other).abs().max() <= bound * one.abs().max()


@needs_native
def test_a_native_backend_that_is_asked_for_is_explained_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, filters = torch.zeros(1, 16, 8, 8), torch.zeros(16, 16, 3, 3), torch.zeros(36 * 16 * 16)
    given = {"attention": (*[torch.zeros(1, 1, 8, 8)] * 3, None), "conv3x3": (x, weight, None, filters)}
    with choice.forced(dict.fromkeys(given, PYTORCH)):
        assert [explain(op, *arguments).backend for op, arguments in given.items()] == ["reference"] * 2
        monkeypatch.setenv("TRILEMMA_BACKEND", "native")
        assert [explain(op, *arguments).backend for op, arguments in given.items()] == ["native"] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": 3}, "does not divide"),
        ({"groups": 0}, "does not divide"),
        ({"weight": torch.ones(4)}, "weight is torch.float32 of shape"),
        ({"weight": torch.ones(8, dtype=torch.float64)}, "weight is torch.float64"),
        ({"scale": torch.ones(1, 8)}, "scale is"),
        ({"residual": torch.ones(1, 8, 4, 4)}, "residual is"),
        ({"residual": torch.ones(2, 8, 4, 4).double()}, "residual is"),
    ],
)
def test_what_does_not_fit_is_refused_either_way(change: dict[str, Any], said: str) -> None:
    given = {"x": torch.ones(2, 8, 4, 4), "groups": 4, **change}
    for way in (NATIVE, PYTORCH):
        with choice.forced({"group_norm_act": way}), pytest.raises(UsageError, match=said):
            group_norm_act(**given)


def test_sizes_that_pytorch_has_no_statistics_of() -> None:
    with choice.forced({"group_norm_act": PYTORCH, "conv3x3": PYTORCH}):
        assert torch.equal(group_norm_act(torch.ones(1, 4), 4, bias=torch.ones(4)), torch.ones(1, 4))
        for shape in ((0, 4, 2, 2), (2, 4, 0, 2)):
            assert group_norm_act(torch.ones(shape), 4).shape == shape
            assert conv3x3(torch.ones(shape), torch.ones(4, 4, 3, 3)).shape == shape
        x = torch.ones(1, 4, 8, 8)
        with pytest.raises(UsageError, match="weight has shape"):
            conv3x3(x, torch.ones(4, 4, 5, 5))
        with pytest.raises(UsageError, match="bias has shape"):
            conv3x3(x, torch.ones(4, 4, 3, 3), torch.ones(3))
        with pytest.raises(UsageError, match=r"weight is torch\.int64"):
            conv3x3(x, torch.ones(4, 4, 3, 3, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_of_an_operator_on_tokens_agree(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 8), (8,), (8,), (2, 8), (2, 8))
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    def results(way: int) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        x, weight, bias, scale, shift = leaves
        ops = ("layer_norm", "layer_norm_backward", "glu", "glu_backward")
        with choice.forced(dict.fromkeys(ops, way)):
            y = layer_norm(x, weight, bias, scale=scale, shift=shift)
            gated = glu(y, silu=True)
            assert (y.stride(), gated.stride()) == (x.stride(), (12, 4, 1))
            return [gated.detach(), *torch.autograd.grad(gated.square().sum(), leaves)]

    bound = 1e-5 if dtype == torch.float32 else 0.1
    for one, other in zip(results(NATIVE), results(PYTORCH), strict=True):
        assert (one - other).abs().max() <= bound * one.abs().max()


def test_autocast_changes_no_dtype_of_what_is_left() -> None:
    x, weight = torch.ones(1, 8, 4, 4), torch.ones(8, 8, 3, 3)
    left = {"conv3x3": PYTORCH, "group_norm_act": PYTORCH}
    with torch.no_grad(), choice.forced(left), torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(x, weight).dtype == torch.float32
        assert group_norm_act(x.bfloat16(), 4).dtype == torch.bfloat16


def test_tile_units_are_a_level_where_nothing_unmeasured_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "instruction_set", lambda: "x86-64-v4-bf16")
    monkeypatch.setattr(processor, "facts", lambda: {"flags": "avx512f avx512_bf16"})
    assert records.level() == "x86-64-v4-bf16"
    monkeypatch.setattr(processor, "facts", lambda: {"flags": "avx512_bf16 amx_bf16 amx_tile"})
    assert records.level() == records.TILES
    below, tiles = look_up("off", ELSEWHERE), look_up("off", replace(ELSEWHERE, level=records.TILES))
    for op in ("attention", "attention_backward", "conv3x3"):
        assert group(tiles, op, "bfloat16") == {UNMEASURED}
        assert group(tiles, op, "float32") == group(below, op, "float32")
    assert group(tiles, "group_norm_act", "bfloat16") == {NATIVE}


def test_what_is_forced_ends() -> None:
    def fail() -> None:
        assert choice.chooses("conv3x3")
        raise ZeroDivisionError

    before = choice.in_force()
    with pytest.raises(ZeroDivisionError), choice.forced({"conv3x3": PYTORCH}):
        fail()
    assert not choice.chooses("conv3x3")
    assert choice.in_force() is before
