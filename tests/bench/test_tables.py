"""Tables fit a terminal of 80 columns, and keep their rows whole in a pipe."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from trilemma.bench.cell import COPY, OURS
from trilemma.bench.comparison import key
from trilemma.bench.table import KernelTable, show_loop, show_samplers

PEERS = ("eager", "torch.compile", "a step of diffusers", "someone-else/very-fast-kernels", "SDPA, copied")


def kernel_record(shape: str = "4×512×64×64") -> dict[str, Any]:
    return {
        "op": "group_norm_act_backward",
        "shape": shape,
        "dtype": "bfloat16",
        "variant": "channels_last",
        "cold": False,
        "way": "PyTorch",
        "choice": {"source": "calibration", "sha256": "0123456789abcdef" * 4},
        "microseconds": {OURS: {"median": 123456.7}, COPY: {"median": 1.0}},
        "least_bytes": 10**9,
        "of_copy": 0.5,
        "ratio": dict.fromkeys(PEERS, (0.91, 0.95, 1.02)),
        "dropped": {"bad/kernels": "RuntimeError: " + "it is broken in more than one way " * 4},
        "device": "x86_64",
        "isa": "x86-64-v4",
        "threads": 2,
        "torch": "2.13.0+cpu",
    }


LOOP = {
    "network": "UNet2DModel of diffusers, 3 levels of 64, 128 and 256 channels, 16 M parameters",
    "threads": 2,
    "torch": "2.13.0+cpu",
    "n": 16,
    "steps": 50,
    "fusion": "fused 7 × GroupNorm",
    **{
        part: [
            {
                "name": "trilemma, fused, bfloat16",
                "seconds": 123.4,
                "first": 9.1,
                "ratio": (1, 2, 3),
                "difference": 1e-6,
            }
        ]
        for part in ("forward", "loop")
    },
}


def sampler_record(reason: str | None) -> dict[str, Any]:
    names = ("frechet", "precision", "recall", "class-agreement")
    return {
        "key": {
            "model": {"name": "mnist"},
            "n": 2000,
            "network_dtype": "float32",
            "steps": 10,
            "sampler": SPEC,
        },
        "budget": 100,
        "nfe": 100,
        "metrics": {} if reason else dict.fromkeys(names, 0.123456),
        "images_per_second": 1234.5,
        "reason": reason,
    }


SPEC = "dpmpp-2m-sde:solver=heun,eta=0.5,grid=karras"


def print_all() -> None:
    record = kernel_record()
    table = KernelTable({key(record): {"of_copy": 0.25}})
    table.show(record)
    table.summarise([record])
    show_loop(LOOP)
    show_samplers(
        [sampler_record(None), sampler_record("one step pays 2 evaluations of the network, more than 1")]
    )


def test_they_fit_80_columns_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_all()
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    for peer in PEERS:
        assert peer in said
    assert "0.1235" in said
    assert "1234.5" in said
    assert "left out bad/kernels: RuntimeError: it is broken" in said
    joined = "".join(said.split())
    assert SPEC in joined
    assert "onesteppays2evaluationsofthenetwork,morethan1" in joined


def test_rows_stay_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_all()
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "4×512×64×64" in line and "µs" in line]
    assert all(peer in row for peer in PEERS)
    assert "2.00× of earlier" in row
    assert any(SPEC in line and "0.1235" in line for line in lines)
