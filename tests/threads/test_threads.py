"""Threads of one process leave each other alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma import ops
from trilemma.models.construction import Constructing
from trilemma.models.fusion.attending import Attending
from trilemma.models.fusion.swapping import Swapped

THREADS, ROUNDS = 8, 100
STORM = Path(__file__).with_name("storm.py")
needs_native = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)


def storm(*arguments: Any) -> str:
    done = subprocess.run(
        [sys.executable, str(STORM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_loading_fusing_sampling_and_training_at_once(tmp_path: Path) -> None:
    """From the first moment of a process, every answer is the one that a thread alone gets, bit for bit."""
    storm(tmp_path, "make")
    result = json.loads(storm(tmp_path, THREADS, ROUNDS))
    assert result["wrong"] == 0, result["first"]
    assert result["calls"] == THREADS * ROUNDS
    assert result["distinct"] == 16, "the answers must differ for a mix-up to show"
    assert result["whole"], "nn.Module is not what it was"


class Gate(nn.Module):
    """A forward that stops half-way until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.GroupNorm(2, 4), nn.SiLU()
        self.reached, self.opened = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        self.reached.set()
        assert self.opened.wait(20)
        return self.act(h)


def meanwhile(gate: Gate, held: Callable[[], Any], look: Callable[[], None]) -> Any:
    """Runs `look` in this thread while another stands in the gate's forward; what that one returns."""
    results: list[Any] = []
    other = threading.Thread(target=lambda: results.append(held()))
    other.start()
    try:
        assert gate.reached.wait(20)
        look()
    finally:
        gate.opened.set()
        other.join()
    return results[0]


@needs_native
def test_nothing_is_patched_while_a_network_is_fused() -> None:
    before = {name: getattr(nn.Module, name) for name in ("__call__", "__getattr__", "__setattr__")}
    gate, other = Gate(), nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.SiLU())
    x = torch.randn(2, 4)
    expected = other(x)

    def look() -> None:
        assert {name: getattr(nn.Module, name) for name in before} == before
        assert torch.equal(other(x), expected)
        assert not torch.overrides._get_current_function_mode_stack()

    report = meanwhile(gate, lambda: trilemma.fuse(gate), look)
    assert "GroupNorm + SiLU" in str(report)


def test_a_network_under_construction_changes_no_draw_of_another_thread() -> None:
    gate = Gate()

    def build() -> Tensor:
        with Constructing(3):
            gate(torch.zeros(1, 4))
            return torch.rand(4)

    def look() -> None:
        torch.manual_seed(9)
        drawn = torch.rand(4)
        assert not torch.equal(drawn, torch.rand(4))
        torch.manual_seed(9)
        assert torch.equal(torch.rand(4), drawn)
        torch.manual_seed(9)

    assert torch.equal(
        meanwhile(gate, build, look), torch.rand(4, generator=torch.Generator().manual_seed(3))
    )
    torch.manual_seed(9)
    wanted = torch.rand(4)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(4), wanted)


@needs_native
def test_attention_is_caught_in_its_own_thread_alone() -> None:
    class Attention(Gate):
        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.scaled_dot_product_attention(x, x, x)
            self.reached.set()
            assert self.opened.wait(20)
            return y

    gate = Attention()
    gate.opened.set()
    trilemma.fuse(gate)
    assert isinstance(gate, Attending)
    gate.opened.clear()
    gate.reached.clear()
    x = torch.randn(1, 2, 5, 4)

    def look() -> None:
        assert not torch.overrides._get_current_function_mode_stack()

    found = meanwhile(gate, lambda: gate(x), look)
    torch.testing.assert_close(found, nn.functional.scaled_dot_product_attention(x, x, x))


@needs_native
def test_threads_share_a_network_from_its_first_call() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 8, 6, 6, generator=generator) for _ in range(THREADS)]
    for seed in range(10):
        with Constructing(seed):
            network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU()).eval()
        trilemma.fuse(network)
        assert any(isinstance(part, Swapped) for part in network.modules())
        start, found = threading.Barrier(THREADS), dict[int, Tensor]()

        def run(place: int, network: nn.Module = network, start: Any = start, found: Any = found) -> None:
            start.wait()
            with torch.inference_mode():
                found[place] = network(inputs[place])

        everyone = [threading.Thread(target=run, args=(place,)) for place in range(THREADS)]
        for each in everyone:
            each.start()
        for each in everyone:
            each.join()
        with torch.inference_mode():
            assert all(torch.equal(found[place], network(x)) for place, x in enumerate(inputs))
