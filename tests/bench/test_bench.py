"""The benchmark measures what it says, refuses what is wrong, and prints what it found."""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trilemma.bench import kernels
from trilemma.bench.cell import OURS, Cell, Work
from trilemma.bench.comparison import change, earlier_runs
from trilemma.bench.timing import Times, measure, ratio
from trilemma.cli.app import main
from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError
from trilemma.ops import Explanation, choice, native

CPU = torch.device("cpu")


def increment(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def cell(error: float = 0.5, function: Callable[..., Any] = increment, **peers: Callable[[], object]) -> Cell:
    x = torch.zeros(1000)
    peers = peers or {"twice": lambda: x.add_(1).add_(1)}
    work = Work(function, (x,), {}, peers, lambda _: error, 8000)
    return Cell("invented", "1000", torch.float32, lambda device: work)


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    cells = {"invented": lambda: iter([cell()]), "other": lambda: iter([cell()])}
    monkeypatch.setattr(kernels, "ALL_CELLS", cells)
    monkeypatch.setattr(kernels, "catalog", lambda: types.SimpleNamespace(components=lambda kind: []))
    monkeypatch.setattr(kernels, "explain", lambda op, *_, **__: Explanation(op, "native", {}))
    return cells


def test_a_record_says_everything(grid: dict[str, Any]) -> None:
    (record,) = kernels.records(["invented"], CPU, 0.01, cold=False)
    assert json.loads(json.dumps(record))["microseconds"] == record["microseconds"]
    assert set(record["microseconds"]) == {OURS, "twice", "copy"}
    assert set(record["ratio"]) == {"twice"}
    low, middle, high = record["ratio"]["twice"]
    assert 0 < low <= middle <= high
    assert {"device", "isa", "threads", "torch", "trilemma", "errors", "least_bytes"} <= record.keys()


@pytest.mark.parametrize("error", [2.0, float("nan")])
def test_a_wrong_kernel_is_not_timed(
    grid: dict[str, Any], error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid["invented"] = lambda: iter([cell(error)])
    monkeypatch.setattr(kernels, "measure", lambda *_: pytest.fail("timed"))
    with pytest.raises(TrilemmaError, match="by trilemma is wrong"):
        list(kernels.records(["invented"], CPU, 0.01, cold=False))


def test_a_fallback_is_not_timed(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = Explanation("invented", "reference", {"native": "not built"})
    monkeypatch.setattr(kernels, "explain", lambda *_, **__: fallback)
    monkeypatch.setattr(kernels, "measure", lambda *_: pytest.fail("timed"))
    with pytest.raises(TrilemmaError, match=r"not native: not built\); build"):
        list(kernels.records(["invented"], CPU, 0.01, cold=False))


def test_a_row_names_the_way_that_was_chosen(
    grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the choice left to PyTorch is timed like any other, and is no fallback."""
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01"]) == 0
    assert "  by native  " in capsys.readouterr().out
    for why in choice.REASONS.values():
        left = Explanation("invented", "reference", {"native": why})
        monkeypatch.setattr(kernels, "explain", lambda *_, left=left, **__: left)
        (record,) = kernels.records(["invented"], CPU, 0.01, cold=False)
        assert (record["way"], record["choice"]) == ("PyTorch", choice.in_force().record())
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "  by PyTorch  " in said
    assert choice.in_force().digest[:12] in said


@pytest.mark.skipif(bool(native.load()), reason=native.load())
@pytest.mark.parametrize(("way", "named"), [(choice.NATIVE, "native"), (choice.PYTORCH, "PyTorch")])
def test_the_cells_that_choose_run_the_way_that_they_name(way: int, named: str) -> None:
    for op in ("conv3x3", "group_norm_act", "attention"):
        first = next(iter(kernels.ALL_CELLS[op]()))
        with choice.forced({op: way}):
            backend = kernels._backend(first, first.prepare(CPU))
        assert backend == ("native" if named == "native" else "reference")


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """Kernels of plugins for every operator, by distribution/backend."""
    brought: dict[str, Callable[..., Any]] = {"someone/fast": lambda x: x.add_(1.0)}
    monkeypatch.setattr(kernels, "outside_kernels", lambda op: (dict(brought), {"broken/one": "it is gone"}))
    return brought


def test_a_plugins_backend_stands_in_the_same_table(
    grid: dict[str, Any], outside: dict[str, Callable[..., Any]]
) -> None:
    (record,) = kernels.records(["invented"], CPU, 0.01, cold=False)
    assert "someone/fast" in record["ratio"]
    assert set(record["errors"]) == {OURS, "someone/fast"}
    assert record["dropped"] == {"broken/one": "it is gone"}


def test_a_wrong_kernel_of_a_plugin_is_left_out_and_the_rest_is_timed(
    grid: dict[str, Any], outside: dict[str, Callable[..., Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The work is to add one to zeros."""

    def prepare(device: torch.device) -> Work:
        x = torch.zeros(1000)
        return Work(
            torch.add, (x, 1), {}, {"twice": lambda: x + 1}, lambda y: 2 * float((y - 1).abs().max()), 8000
        )

    def late(x: torch.Tensor, y: int, calls: list[int] = []) -> torch.Tensor:  # noqa: B006
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("tired")
        return x + y

    def damaging(x: torch.Tensor, y: int) -> torch.Tensor:
        result = x + y
        x.fill_(7)
        return result

    def missing(x: torch.Tensor, y: int) -> torch.Tensor:
        raise NotImplementedError

    outside |= {
        "bad/two": lambda x, y: x + 2 * y,
        "bad/nan": lambda x, y: x / 0,
        "bad/none": lambda x, y: None,
        "bad/arguments": lambda x: x,
        "bad/missing": missing,
        "bad/late": late,
        "bad/damaging": damaging,
    }
    outside["someone/fast"] = lambda x, y: x + y
    grid["invented"] = lambda: iter([Cell("invented", "1000", torch.float32, prepare)] * 2)
    first, second = kernels.records(["invented"], CPU, 0.01, cold=False)
    for record in (first, second):
        assert set(record["ratio"]) == {"twice", "someone/fast"}
        assert set(record["errors"]) == {OURS, "someone/fast"}
        assert "is wrong: its error is 2 times the tolerance" in record["dropped"]["bad/two"]
        assert "is wrong: its error is nan" in record["dropped"]["bad/nan"]
        assert "TypeError" in record["dropped"]["bad/none"]
        assert "TypeError" in record["dropped"]["bad/arguments"]
        assert record["dropped"]["bad/missing"] == "NotImplementedError"
        assert record["dropped"]["bad/late"] == "RuntimeError: tired"
        assert record["dropped"]["bad/damaging"] == "it changes its arguments"
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "left out bad/late: RuntimeError: tired" in said
    assert "someone/fast" in said


def test_backends_that_cannot_be_asked_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    brought: dict[str, Any] = {
        "good": types.SimpleNamespace(operators={"attention": abs}),
        "list": types.SimpleNamespace(operators=["attention"]),
        "nothing": types.SimpleNamespace(),
    }

    def entry(name: str) -> Any:
        plugin, spec = types.SimpleNamespace(distribution="dist"), types.SimpleNamespace(name=name)
        return types.SimpleNamespace(plugin=plugin, spec=spec)

    def target(found: Any) -> Any:
        if found.spec.name == "gone":
            raise PluginUnavailable("its module is gone")
        return brought[found.spec.name]

    entries = [entry(name) for name in (*brought, "gone")]
    monkeypatch.setattr(kernels, "catalog", lambda: types.SimpleNamespace(components=lambda kind: entries))
    monkeypatch.setattr(kernels, "import_target", target)
    found, dropped = kernels.outside_kernels("attention")
    assert found == {"dist/good": abs}
    assert set(dropped) == {"dist/list", "dist/nothing", "dist/gone"}
    assert dropped["dist/gone"] == "its module is gone"
    assert kernels.outside_kernels("conv3x3")[0] == {}


def test_a_plugins_cells_stand_in_the_grid(
    grid: dict[str, Any], outside: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a backend brings by name; none replaces one of the engine's, and one that fails is named."""
    backends: dict[str, Any] = {
        "one": types.SimpleNamespace(cells={"step": lambda: iter([cell()]), "other": lambda: iter([])}),
        "list": types.SimpleNamespace(cells=["step"]),
    }

    def entry(name: str) -> Any:
        plugin, spec = types.SimpleNamespace(distribution="dist"), types.SimpleNamespace(name=name)
        return types.SimpleNamespace(plugin=plugin, spec=spec)

    entries = [entry(name) for name in backends]
    monkeypatch.setattr(kernels, "catalog", lambda: types.SimpleNamespace(components=lambda kind: entries))
    monkeypatch.setattr(kernels, "import_target", lambda found: backends[found.spec.name])
    with pytest.warns(UserWarning, match=r"left out the cells of dist/list: .*no mapping"):
        found = list(kernels.records([], CPU, 0.01, cold=False))
    assert len(found) == 3
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UsageError, match=r"from .*step"):
        list(kernels.records(["steps"], CPU, 0.01, cold=False))


def test_a_cell_says_whose_operator_does_its_work(
    grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def explained(op: str, *_: Any, **__: Any) -> Explanation:
        asked.append(op)
        return Explanation(op, "native", {})

    monkeypatch.setattr(kernels, "explain", explained)
    grid["invented"] = lambda: iter([replace(cell(), operator="linear_step")])
    list(kernels.records(["invented", "other"], CPU, 0.01, cold=False))
    assert asked == ["linear_step", "invented"]


@pytest.mark.parametrize("name", ["ddim_step", "sscs_step", "euler_maruyama_step"])
def test_the_steps_of_the_families_have_cells(name: str) -> None:
    first = next(iter(kernels.outside_cells()[name]()))
    work = first.prepare(CPU)
    kernels._checked(first, work, OURS, work.call(work.function))
    with pytest.raises(TrilemmaError, match="by trilemma is wrong"):
        kernels._checked(first, work, OURS, lambda: work.call(work.function)().mul_(1.01))


def test_an_unknown_operator() -> None:
    with pytest.raises(UsageError, match=r"choose from .*linear_step"):
        list(kernels.records(["conv"], CPU, 0.01, cold=False))


def test_rounds_are_interleaved() -> None:
    order: list[str] = []
    contenders = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = measure(contenders, CPU, 0.001, cold=True)
    rounds = len(times["a"].rounds)
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns[-2 * rounds :] == ["a", "b"] * rounds


def test_the_interval_holds_the_ratio() -> None:
    generator = torch.Generator().manual_seed(0)
    slow, fast = (1 + torch.rand(2, 400, generator=generator)).tolist()
    low, middle, high = ratio(Times(tuple(2 * value for value in slow)), Times(tuple(fast)))
    assert low <= middle <= high
    assert low < 2 < high
    assert high - low < 0.5


def test_an_earlier_run(grid: dict[str, Any], tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = kernels.records(["invented"], CPU, 0.01, cold=False)
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**record, "of_copy": record["of_copy"] / 2}) + "\n")
    (earlier,) = earlier_runs(path).values()
    assert change(record, earlier) == pytest.approx(2)
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01", "--compare", str(path)]) == 0
    assert "of earlier" in capsys.readouterr().out
    path.write_text("[]")
    with pytest.raises(UsageError, match="holds no records"):
        earlier_runs(path)
    with pytest.raises(UsageError, match="cannot read"):
        earlier_runs(tmp_path / "none")


def test_json_alone_on_stdout(grid: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--seconds", "0.01", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["op"] for line in lines] == ["invented", "invented"]


def test_a_losing_cell_is_printed(grid: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    def slow(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(100_000).sum() + x

    grid["invented"] = lambda: iter([cell(function=slow, quick=lambda: None)])
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01"]) == 0
    assert "quick is faster at invented" in capsys.readouterr().out


def test_a_roofline(grid: dict[str, Any], tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "roof.png"
    assert main(["bench", "kernels", "--op", "invented", "--seconds", "0.01", "--roofline", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_every_cell_of_the_grid_is_right() -> None:
    for cells in {**kernels.ALL_CELLS, **kernels.outside_cells()}.values():
        for found in cells():
            if found.shape.count("512") or found.shape.count("786432"):
                continue  # correct like the smaller ones, but minutes of memory traffic
            work = found.prepare(CPU)
            kernels._checked(found, work, OURS, work.call(work.function))


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_here(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--device", device, "--op", "keyed_normal"]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert device in line
    assert "Error" not in line


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    captured = capsys.readouterr()
    assert "kernels" in captured.out
    assert not captured.err
