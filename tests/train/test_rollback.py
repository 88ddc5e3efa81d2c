"""A run whose objective bounds a number of its log goes back once where it is beyond, and ends the next time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma.errors import ModelError
from trilemma.interfaces.objective import Objective
from trilemma.train import trainer
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.recipe import make_recipe
from trilemma.train.schedule import learning_rate
from trilemma.train.trainer import train

STEPS = 12
TABLE: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 16,
    "tensorboard": False,
    "checkpoint_every": 3,
    "log_every": 4,
    "dataset": {"spec": "mixture2d:n=200"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "parameterization": "x0", "options": {"width": 8}},
    "objective": {"spec": "test-bounded"},
    "optimizer": {"lr": 1e-3, "warmup": 2},
}


class Bounded(Objective):
    """Logs a height, which must not be above 2."""

    height: Callable[[int], float]
    asked: list[int]
    bound = 2.0

    def bounds(self) -> dict[str, float]:
        return {"height": self.bound}

    def update_loss(self, update, step):
        Bounded.asked.append(step.number)
        answer = step.network(step.x0, torch.ones(len(step.x0)))
        return (answer - step.x0).square().mean(), {"height": Bounded.height(step.number)}


@pytest.fixture(autouse=True)
def bounded(register):
    register("objective", "test-bounded", Bounded)
    Bounded.asked, Bounded.bound = [], 2.0


def once(number: int) -> Callable[[int], float]:
    """A height that is beyond the bound the first time that a step is made."""
    return lambda step: 100.0 if step == number and Bounded.asked.count(step) == 1 else 1.0


def lines(folder: Path) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in read]


def last(folder: Path) -> Any:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])


def test_it_goes_back_to_its_last_checkpoint_with_half_the_rate(tmp_path, capsys):
    Bounded.height = once(7)
    train(make_recipe(TABLE), tmp_path / "run")
    steps = Bounded.asked[Bounded.asked.index(1) - 1 :]
    # Found at the line of step 8, after the checkpoint of step 6.
    assert steps == [*range(8), *range(6, STEPS)]
    told = capsys.readouterr().err.strip().splitlines()
    assert told == [
        "the height is 25.75, beyond 2, at step 8: back to step 6, with 0.5 times the learning rate from there on"
    ]
    assert [line["step"] for line in lines(tmp_path / "run")] == [4, 6, 8, 12]
    assert lines(tmp_path / "run")[1] == {"step": 6, "rolled_back_from": 8}
    plain, rolled = (line["lr"] for line in lines(tmp_path / "run") if line["step"] in (4, 8))
    recipe = make_recipe(TABLE).optimizer
    assert plain == learning_rate(3, STEPS, 2, recipe.lr, recipe.final_lr)
    assert rolled == learning_rate(7, STEPS, 2, recipe.lr, recipe.final_lr) / 2
    assert last(tmp_path / "run").scalars["rollback"] == {"to": 6, "diverged": 8}


def test_the_second_time_it_ends_with_one_line(tmp_path):
    Bounded.height = lambda step: 100.0 if step == 7 else 1.0
    with pytest.raises(ModelError) as caught:
        train(make_recipe(TABLE), tmp_path / "run")
    message = str(caught.value)
    assert (
        "the height is 25.75, beyond 2, at step 8, after a rollback from step 8; lower optimizer.lr"
        in message
    )
    assert "\n" not in message
    assert len(message) < 300
    # And again, as the checkpoint says that it was rolled back.
    Bounded.asked = []
    with pytest.raises(ModelError, match="after a rollback"):
        train(make_recipe(TABLE), tmp_path / "run")


def test_no_checkpoint_is_written_beyond_the_bound(tmp_path):
    """The line of the log comes after the checkpoint here."""
    Bounded.height = once(4)
    train(make_recipe({**TABLE, "log_every": 12}), tmp_path / "run")
    assert last(tmp_path / "run").scalars["rollback"] == {"to": 3, "diverged": 6}


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(tmp_path):
    Bounded.height = once(1)
    train(make_recipe(TABLE), tmp_path / "run")
    assert last(tmp_path / "run").scalars["rollback"] == {"to": 0, "diverged": 3}
    # A run with half the rate from the start.
    Bounded.height = lambda step: 1.0
    optimizer = {**TABLE["optimizer"], "lr": 5e-4}
    train(make_recipe({**TABLE, "optimizer": optimizer}), tmp_path / "slow")
    same(tmp_path / "run", tmp_path / "slow")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_beyond(tmp_path, value):
    Bounded.height = lambda step: value if step == 7 and Bounded.asked.count(7) == 1 else 1.0
    train(make_recipe(TABLE), tmp_path / "run")
    assert last(tmp_path / "run").scalars["rollback"] == {"to": 6, "diverged": 8}


@pytest.mark.parametrize("moment", ["restored", "saved", "later"])
def test_a_run_that_is_killed_about_its_rollback_ends_alike(tmp_path, monkeypatch, moment):
    """Before the checkpoint that records it, right after, and steps later."""
    Bounded.height = lambda step: 100.0 if step == 7 and not rolled() else 1.0
    runs: list[trainer._Run] = []
    made = trainer._Run.__init__

    def kept(self, *given):
        made(self, *given)
        runs[:] = [self]

    def rolled() -> bool:
        return bool(runs) and runs[0].rollback is not None

    monkeypatch.setattr(trainer._Run, "__init__", kept)
    train(make_recipe(TABLE), tmp_path / "whole")

    save, back, advance = trainer._Run._save, trainer._Run._roll_back, trainer._Run._advance

    def saved(self, step):
        if rolled() and moment == "restored":
            raise KeyboardInterrupt
        save(self, step)

    def after(self, found):
        step = back(self, found)
        if moment == "saved":
            raise KeyboardInterrupt
        return step

    def advanced(self, step, log):
        if rolled() and step == 10 and moment == "later":
            raise KeyboardInterrupt
        return advance(self, step, log)

    monkeypatch.setattr(trainer._Run, "_save", saved)
    monkeypatch.setattr(trainer._Run, "_roll_back", after)
    monkeypatch.setattr(trainer._Run, "_advance", advanced)
    with pytest.raises(KeyboardInterrupt):
        train(make_recipe(TABLE), tmp_path / "run")
    for name, method in (("_save", save), ("_roll_back", back), ("_advance", advance)):
        monkeypatch.setattr(trainer._Run, name, method)
    train(make_recipe(TABLE), tmp_path / "run")
    same(tmp_path / "whole", tmp_path / "run")
    assert lines(tmp_path / "whole") == lines(tmp_path / "run")


def same(first: Path, second: Path) -> None:
    a, b = last(first), last(second)
    for group, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[group][name]), (group, name)
