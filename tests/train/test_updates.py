"""Several networks in one step: who learns, from which draws, with which optimizer, and what is logged."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from trilemma import lookup
from trilemma.errors import ModelError, UsageError
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Step, Update
from trilemma.numerics.step_keys import step_generator
from trilemma.train import trainer
from trilemma.train.checkpoint import list_checkpoints, load_checkpoint
from trilemma.train.ema import Ema
from trilemma.train.learner import Learner
from trilemma.train.parts import Parts
from trilemma.train.processes import Processes
from trilemma.train.recipe import make_recipe
from trilemma.train.schedule import learning_rate
from trilemma.train.trainer import train
from trilemma_plugins.points.adversarial import Adversarial

GAN: dict[str, Any] = {
    "steps": 12,
    "batch_size": 16,
    "tensorboard": False,
    "checkpoint_every": 5,
    "keep": 5,
    "log_every": 4,
    "dataset": {"spec": "mixture2d:n=200"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {"spec": "mlp", "parameterization": "x0", "options": {"width": 8}},
    "objective": {"spec": "gan:width=8,every=3"},
    "optimizer": {
        "lr": 1e-3,
        "warmup": 2,
        "discriminator": {"lr": 2e-3, "kind": "adam", "betas": [0.0, 0.9]},
    },
}


def recipe(**changed: Any) -> Any:
    return make_recipe({**copy.deepcopy(GAN), **changed})


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def copied(parts: Parts) -> dict[str, list[torch.Tensor]]:
    return {name: [p.detach().clone() for p in module.parameters()] for name, module in parts.modules.items()}


def test_an_update_fills_and_moves_the_parts_that_learn_in_it_and_no_other(tmp_path, monkeypatch):
    """The update of the discriminator writes no gradient into the generator, and that of the generator none back."""
    update, learn = trainer._Run._update, Learner.learn
    seen = []

    def watched(run, step, index, examples):
        def told(learner):
            for name, module in run.parts.modules.items():
                filled = [p.grad is not None for p in module.parameters()]
                assert all(filled) if name in learner.update.learns else not any(filled), name
            return learn(learner)

        monkeypatch.setattr(Learner, "learn", told)
        before = copied(run.parts)
        norm = update(run, step, index, examples)
        now = run.parts.updates[index]
        for name, module in run.parts.modules.items():
            same = [torch.equal(a, b) for a, b in zip(before[name], module.parameters(), strict=True)]
            assert not all(same) if name in now.learns else all(same), (now.name, name)
            assert all(p.grad is None for p in module.parameters())
        seen.append(now.name)
        return norm

    monkeypatch.setattr(trainer._Run, "_update", watched)
    train(recipe(), tmp_path / "run")
    assert seen == ["discriminator", "generator"] * 12


class Pair(Objective):
    """Two updates, the second in every third step; tells what it is given."""

    frozen = ("teacher",)
    told: ClassVar[list[tuple[str, int, int, dict[str, bool]]]] = []

    def parts(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"other": nn.Linear(2, 1), "teacher": nn.Sequential(nn.Linear(2, 1), nn.Dropout())}

    def updates(self) -> tuple[Update, ...]:
        return Update("first"), Update("second", ("other",), every=3, optimizer={"lr": 5e-4})

    def update_loss(self, update, step):
        training = {name: module.training for name, module in step.parts.items()}
        if training["other"]:
            Pair.told.append((update.name, step.number, step.generator.initial_seed(), training))
        if update.name == "first":
            return step.network(step.x0, torch.ones(len(step.x0))).square().mean(), {"size": 2.0}
        return (
            (step.parts["other"](step.x0.flatten(1)) - step.parts["teacher"](step.x0.flatten(1)))
            .square()
            .mean()
        )


@pytest.fixture
def pair(register) -> dict[str, str]:
    register("objective", "test-pair", Pair)
    Pair.told = []
    return {"spec": "test-pair"}


PLAIN = {"lr": 1e-3, "warmup": 2}


def test_an_update_is_made_in_every_nth_step_with_a_generator_of_its_own(tmp_path, pair):
    train(recipe(objective=pair, optimizer=PLAIN, seed=4), tmp_path / "run")
    assert [told[:2] for told in Pair.told if told[0] == "first"] == [("first", k) for k in range(12)]
    assert [told[:2] for told in Pair.told if told[0] == "second"] == [("second", k) for k in (0, 3, 6, 9)]
    assert len({told[2] for told in Pair.told}) == 16
    # As an objective of one network was always given it.
    assert Pair.told[0][2] == step_generator(4, 0, 2).initial_seed()
    assert all(told[3] == {"other": True, "teacher": False} for told in Pair.told)


def test_numbers_are_logged_by_update_and_count_for_themselves(tmp_path, pair):
    train(recipe(objective=pair, optimizer=PLAIN, steps=8), tmp_path / "run")
    first, second = lines(tmp_path / "run")
    losses = {"first_loss", "first_size", "second_loss"}
    beside = {"step", "images_per_second", "first_lr", "second_lr", "first_grad_norm"}
    # The second update was made in step 3, the last of these lines, and in step 6.
    assert set(first) == losses | beside | {"second_grad_norm"}
    assert set(second) == losses | beside
    assert first["first_size"] == second["first_size"] == 2.0


def test_each_optimizer_has_its_settings(tmp_path, pair):
    """Those of the recipe, then those of the objective, then those of the update's own table."""
    run = trainer._Run(recipe(objective=pair, optimizer=PLAIN), tmp_path / "a", False)
    assert [learner._settings.lr for learner in run.learners] == [1e-3, 5e-4]
    table = {**PLAIN, "second": {"lr": 7e-4, "kind": "adam", "betas": [0.5, 0.9], "clip": 2.0}}
    run = trainer._Run(recipe(objective=pair, optimizer=table), tmp_path / "b", False)
    first, second = run.learners
    assert isinstance(first.optimizer, torch.optim.AdamW)
    assert type(second.optimizer) is torch.optim.Adam
    assert second.optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    assert (first._settings.clip, second._settings.clip) == (1.0, 2.0)
    for learner, peak in ((first, 1e-3), (second, 7e-4)):
        learner.set_rate(0, 12)
        assert learner.rate == learning_rate(0, 12, 2, peak, 0.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"secnd": {"lr": 1e-4}}, r"\[optimizer.secnd\] is for no update .* its updates: first, second"),
        (
            {"second": {"lrr": 1e-4}},
            "update second: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'",
        ),
        ({"second": {"lr": -1.0}}, "update second: optimizer.lr = -1.0 is out of range"),
        ({"second": {"third": {"lr": 1.0}}}, "means nothing"),
    ],
)
def test_a_table_that_fits_no_update_is_refused(tmp_path, pair, table, message):
    with pytest.raises(UsageError, match=message) as caught:
        train(recipe(objective=pair, optimizer={**PLAIN, **table}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen": ()}, "part 'teacher' learns in no update"),
        ({"frozen": ("teacher", "other")}, "part 'other' is frozen and learns"),
        ({"frozen": ("teacher", "judge")}, "frozen names 'judge', and the parts are model, other, teacher"),
        ({"averaged": ("generator",)}, "averaged names 'generator'"),
        ({"updates": lambda self: (Update("a"), Update("a", ("other",)))}, "two updates are named 'a'"),
        ({"updates": lambda self: (Update("a", ("other",)),)}, "part 'model' learns in no update"),
        ({"updates": lambda self: (Update("a b"),)}, "named by no identifier"),
        ({"parts": lambda self, model: {"model": nn.Linear(1, 1)}}, "the part 'model' needs another name"),
        (
            {"parts": lambda self, model: {"other": model, "teacher": nn.Linear(2, 1)}},
            "have weights in common",
        ),
        (
            {"parts": lambda self, model: {"other": 5, "teacher": nn.Linear(2, 1)}},
            "is a int, no torch.nn.Module",
        ),
        ({"update_loss": lambda self, u, s: (s.x0.mean(), {"loss": 1.0})}, "it logs 'loss'"),
        ({"update_loss": lambda self, u, s: s.x0.flatten(1)}, "gives no scalar loss"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_the_first_step(
    tmp_path, pair, monkeypatch, change, message
):
    for name, value in change.items():
        monkeypatch.setattr(Pair, name, value)
    with pytest.raises((UsageError, ModelError), match=message) as caught:
        train(recipe(objective=pair, optimizer=PLAIN), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_depends_on_nothing_that_learns_is_named(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(Pair, "update_loss", lambda self, u, s: s.x0.mean())
    with pytest.raises(UsageError, match="update first: its loss depends on none of model"):
        train(recipe(objective=pair, optimizer=PLAIN), tmp_path / "run")


def test_what_is_frozen_is_known_by_its_weights_and_kept_in_no_checkpoint(tmp_path, pair, monkeypatch):
    train(recipe(objective=pair, optimizer=PLAIN, steps=5), tmp_path / "run")
    checkpoint = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert set(checkpoint.tensors) - {"log"} == {
        "part.model", "part.other", "ema.model", "optimizer.first", "optimizer.second"
    }  # fmt: skip
    assert len(checkpoint.identity.frozen) == 64
    train(recipe(objective=pair, optimizer=PLAIN, steps=5), tmp_path / "run")
    made = Pair.parts

    def other(self, model):
        found = made(self, model)
        with torch.no_grad():
            found["teacher"][0].weight[0, 0] += 1e-6
        return found

    monkeypatch.setattr(Pair, "parts", other)
    with pytest.raises(ModelError, match="another teacher or other frozen weights"):
        train(recipe(objective=pair, optimizer=PLAIN, steps=5), tmp_path / "run")


def test_the_parts_that_ask_for_it_are_averaged(tmp_path, pair, monkeypatch):
    monkeypatch.setattr(Pair, "averaged", ("model", "other"))
    train(recipe(objective=pair, optimizer=PLAIN, steps=3, ema=0.5, ema_warmup=1), tmp_path / "run")
    tensors = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).tensors
    assert not torch.equal(tensors["ema.other"]["weight"], tensors["part.other"]["weight"])


def test_an_average_warms_up():
    """d = min(decay, (1 + k)/(w + k)); w = 1 has none."""
    for warmup in (1, 10, 100):
        network = nn.Linear(1, 1, bias=False)
        average = Ema(network, 0.9, warmup)
        expected = network.weight.item()
        for k in range(50):
            with torch.no_grad():
                network.weight.fill_(k % 7)
            average.update(network, k)
            decay = min(0.9, (1 + k) / (warmup + k))
            expected = decay * expected + (1 - decay) * (k % 7)
        assert float(average.state_dict()["weight"]) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_weighs_as_much_in_every_nth_step_as_one_in_each():
    """Its mean over steps does not depend on `every`."""
    model = lookup.denoiser(
        "mlp", process=lookup.process("vp-continuous"), shape=(2, 1, 1), parameterization="x0", width=8
    )
    x0 = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(0))

    def mean_loss(every: int, gamma: float) -> float:
        objective = Adversarial(gamma=gamma, every=every, width=8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parts = objective.parts(model)
        total = 0.0
        for number in range(12):
            step = Step(model, model, parts, x0, {}, {}, torch.Generator().manual_seed(number), number)
            found = objective.update_loss(objective.updates()[0], step)
            assert isinstance(found, tuple)
            total += float(found[0].detach()) / 12
        return total

    plain = mean_loss(1, 0.0)
    each = mean_loss(1, 500.0)
    assert each > plain + 0.01
    for every in (2, 3, 4, 6):
        assert mean_loss(every, 500.0) == pytest.approx(each, rel=1e-5)


def test_each_update_scales_its_own_float16_loss(tmp_path, monkeypatch):
    """Scales that are powers of two change no weight."""
    train(recipe(steps=4), tmp_path / "plain")
    made = trainer.Precision.__init__
    scales = iter((2.0**6, 2.0**10))

    def scaled(self, name, device):
        made(self, name, device)
        self._scaler = torch.amp.GradScaler("cpu", init_scale=next(scales, 1.0), growth_interval=3)

    prepared = trainer.prepare

    def then_scaled(*given):
        # The scale is each update's own; that of the trial before is none.
        found = prepared(*given)
        monkeypatch.setattr(trainer.Precision, "__init__", scaled)
        return found

    monkeypatch.setattr(trainer, "prepare", then_scaled)
    train(recipe(steps=4), tmp_path / "scaled")
    first, second = (
        load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("plain", "scaled")
    )
    found = {name: state["scale"] for name, state in second.scalars["precision"].items()}
    assert found == {"discriminator": 2.0**7, "generator": 2.0**11}
    for group, tensors in first.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, second.tensors[group][name]), (group, name)


def test_buffers_are_those_of_the_first_process(monkeypatch):
    """Running statistics, which gradients do not average, of every dtype."""
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(2))
    told = []

    def broadcast(tensor, src):
        told.append((tensor.dtype, src))
        tensor.copy_(torch.arange(len(tensor)) + 1)

    processes = Processes()
    weights = [entry.detach().clone() for entry in module.parameters()]
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    processes.share_buffers([module])
    assert told == []
    processes.world = 2
    processes.share_buffers([module])
    assert told == [(torch.float32, 0), (torch.int64, 0)]
    assert module[0].running_mean.tolist() == [1, 2, 3]
    assert module[1].running_var.tolist() == [9, 10]
    assert [int(norm.num_batches_tracked) for norm in module] == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
