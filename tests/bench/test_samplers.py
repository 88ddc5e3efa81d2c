"""`trilemma bench samplers`: budgets, rows that cannot be run, and a run that is taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma import Request
from trilemma.bench import samplers
from trilemma.errors import TrilemmaError, UsageError
from trilemma.registry import SamplerSpec
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP


class Heun(DDIM):
    def nfe(self, steps: int) -> int:
        return 2 * steps


class Measure:
    """Stands in for the evaluator and counts what is drawn."""

    def describe(self) -> dict[str, Any]:
        return {"dataset": "none"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    calls: list[tuple[str, int]] = []

    def evaluate(request: Request, evaluator: Any) -> dict[str, Any]:
        calls.append((type(request.sampler).__name__, request.steps))
        if request.steps == 3:
            raise TrilemmaError("no three")
        return {"nfe": request.steps, "images_per_second": 1.0, "backend": "x", "metrics": {"frechet": 1.0}}

    monkeypatch.setattr(samplers, "evaluate", evaluate)
    return calls


def run(budgets: list[int], out: Path | None = None, **conditions: Any) -> list[dict[str, Any]]:
    model = GaussianDenoiser(DiscreteVP(schedule="cosine", T=1000), [0.0], 0.04, "v", (1, 1, 1)).eval()
    wanted = samplers.Conditions(**{"n": 20, **conditions})
    evaluator: Any = Measure()
    return list(samplers.records(model, evaluator, ["ddim", "ddpm:variance=large"], budgets, wanted, out))


def test_steps_are_the_most_a_budget_pays_for() -> None:
    assert samplers.steps_within(DDIM(), 7) == 7
    assert samplers.steps_within(Heun(), 7) == 3
    with pytest.raises(UsageError, match="one step pays 2"):
        samplers.steps_within(Heun(), 1)


def test_what_cannot_be_run_is_a_row_with_its_reason(drawn: list[tuple[str, int]]) -> None:
    found = run([2, 3])
    assert [record["reason"] for record in found] == [None, None, "no three", "no three"]


def test_a_run_is_taken_up_where_it_stopped(drawn: list[tuple[str, int]], tmp_path: Path) -> None:
    out = tmp_path / "cells.jsonl"
    first = run([2], out)
    with out.open("a") as file:
        file.write('{"key": {"unfinis')
    assert run([2, 4], out)[:2] == first
    assert drawn == [("DDIM", 2), ("DDPM", 2), ("DDIM", 4), ("DDPM", 4)]
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 4
    run([2], out, seed=1)
    assert len(drawn) == 6, "another seed is another cell"


def test_only_quality_depends_on_no_threads(drawn: list[tuple[str, int]]) -> None:
    (record, _) = run([2], speed=False)
    assert record["images_per_second"] is None
    assert record["key"]["threads"] is None
    assert run([2])[0]["key"]["threads"] == torch.get_num_threads()


def test_a_file_of_something_else_is_refused(drawn: list[tuple[str, int]], tmp_path: Path) -> None:
    out = tmp_path / "other.jsonl"
    out.write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match="give another --out"):
        run([2], out)
    assert out.read_text() == '{"a": 1}\n'


def test_variants_are_measured_beside_the_defaults() -> None:
    assert {"ddim", "ddim:eta=1", "ddpm", "ddpm:variance=large"} <= set(samplers.contenders())
    assert samplers.contenders(["ddim"]) == ["ddim"]
    with pytest.raises(TypeError, match="not a tuple"):
        SamplerSpec("a", "b:c", "d", variants="eta=1")  # type: ignore[arg-type]
