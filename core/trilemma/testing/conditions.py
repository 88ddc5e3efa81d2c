"""Checks of the conditions of a network: each is heard, its null is one, and what is absent says nothing."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from trilemma.interfaces.condition import Condition, PreparedConditions, TextCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.machine.global_generators import seeded
from trilemma.testing.outcome import Skipped

# Values of each condition that a network is asked under.
VALUES = 4
# Steps of training before a condition must be heard: layers that begin at zero hide it at first.
STEPS, RATE = 8, 3e-3
# The least part of an answer's largest value by which another value of a condition must move it, in float64.
HEARD = 1e-9
# A value that no absent entry may let through.
_GARBAGE = 3.0

Told = dict[str, Tensor]


def condition_checks(model: Denoiser) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    # A network that answers zero at first would pass anything.
    trained = cache(lambda: _trained(model))
    yield "conditions are taken, with and without null", lambda: _taken(model)
    entries = list(model.conditions.values())
    if entries:
        yield "conditions are heard after training", lambda: _heard(trained())
    if any(entry.has_null for entry in entries):
        yield "the null of training is that of sampling", lambda: _null(trained())
    if any(map(_marks, entries)):
        yield "an absent value says nothing", lambda: _absent(trained())
    if any(map(_is_sequence, entries)):
        yield "padding a text changes no bit", lambda: _padding(trained())
        yield "texts of mixed lengths, each as alone", lambda: _mixed(trained())


def told(model: Denoiser, count: int, seed: int = 4) -> Told:
    """Returns all tensors [count, ...] that a network takes beside z and t: values of its conditions, which differ."""
    generator = torch.Generator().manual_seed(seed)
    parts = [entry.drawn(count, generator) for entry in model.conditions.values()]
    beside = {name: torch.randn(count, *shape, generator=generator) for name, shape in model.draws.items()}
    if model.takes_to:
        beside["to"] = torch.full((count,), 0.1)
    return PreparedConditions(parts).take(torch.arange(count)) | beside


def _states(model: Denoiser, count: int) -> tuple[Tensor, Tensor]:
    """One state and time, `count` times."""
    dtype = next((entry.dtype for entry in model.own_tensors() if entry.is_floating_point()), torch.float32)
    shape = (model.process.components * model.shape[0], *model.shape[1:])
    z = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    return z.repeat(count, *(1,) * len(shape)), torch.full((count,), 0.5)


@torch.no_grad()
def _answer(model: Denoiser, cond: Mapping[str, Tensor]) -> Tensor:
    z, t = _states(model, len(next(iter(cond.values()))))
    answer: Tensor = model(z, t, **cond)
    return answer


def _is_sequence(condition: Condition) -> bool:
    return isinstance(condition, TextCondition) and condition.form == "sequence"


def _taken(model: Denoiser) -> str:
    if not model.conditions:
        raise Skipped("it takes no condition")
    for name, entry in model.conditions.items():
        values = told(model, VALUES)
        if entry.has_null:
            values |= {key: torch.cat([values[key], absent]) for key, absent in _one_absent(entry).items()}
            others = set(values) - set(entry.keywords)
            values |= {key: torch.cat([values[key], values[key][:1]]) for key in others}
        finite = _answer(model, values).flatten(1).isfinite().all(1)
        for i in range(len(finite)):
            which = f"value {i}" if i < VALUES else "the null"
            assert bool(finite[i]), f"{which} of condition {name!r} gives no finite answer"
    return ", ".join(model.conditions)


def _one_absent(condition: Condition) -> Told:
    return condition.absent(torch.zeros(1, dtype=torch.int64))


def _heard(model: Denoiser) -> str:
    """Two values of a condition, and a value and its null, have different answers."""
    entries = model.conditions.values()
    trained = copy.deepcopy(model).double()
    values = told(trained, VALUES)
    first = {name: value[:1] for name, value in values.items()}
    answers = {}
    for entry in entries:
        rows = {name: value[:1].repeat(VALUES, *(1,) * (value.dim() - 1)) for name, value in values.items()}
        rows |= {name: values[name] for name in entry.keywords}
        asked = _answer(trained, rows)
        scale = float(asked.abs().max()) + 1e-12
        moved = float((asked - asked[:1]).abs().max()) / scale
        own = [values[name] for name in entry.keywords]
        differ = any(not torch.equal(value, value[:1].expand_as(value)) for value in own)
        assert moved > HEARD or not differ, (
            f"condition {entry.name!r} is not heard: after {STEPS} steps of training its values move the answer by "
            f"{moved:.1g} of it"
        )
        answers[entry.name] = moved
        if entry.has_null:
            null = _answer(trained, {**first, **_one_absent(entry)})
            moved = float((null - asked[:1]).abs().max()) / scale
            assert moved > HEARD, f"the null of condition {entry.name!r} is not heard: it is its first value"
    return ", ".join(f"{name} moves it by {moved:.1g}" for name, moved in answers.items())


def _trained(model: Denoiser) -> Denoiser:
    """The network after a few steps of the mean squared error to random targets, half of the conditions dropped.

    Nothing in the targets says which condition matters.
    """
    network = copy.deepcopy(model).float().train()
    parameters = [entry for entry in network.parameters() if entry.is_floating_point()]
    if not parameters:
        return network.eval()
    with seeded(5), torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, RATE)
        for step in range(STEPS):
            cond = told(network, VALUES, seed=step)
            for entry in network.conditions.values():
                if entry.has_null:
                    cond |= entry.drop(cond, torch.arange(VALUES) % 2 == step % 2)
            shape = (network.process.components * network.shape[0], *network.shape[1:])
            z, target = torch.randn(VALUES, *shape), torch.randn(VALUES, *network.shape)
            loss = (network(z, torch.rand(VALUES), **cond) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def _null(model: Denoiser) -> str:
    entries = [entry for entry in model.conditions.values() if entry.has_null]
    for entry in entries:
        values = told(model, VALUES)
        where = torch.arange(VALUES) % 2 == 0
        dropped, absent = entry.drop(values, where), entry.absent(torch.arange(VALUES))
        for name in entry.keywords:
            assert torch.equal(dropped[name][where], absent[name][where]), (
                f"condition {entry.name!r} has one null in training and another in sampling: {name} differs"
            )
            assert torch.equal(dropped[name][~where], values[name][~where]), (
                f"dropping condition {entry.name!r} changes the examples that keep it"
            )
        answers = (
            _answer(model, {**values, **told_}) for told_ in (entry.drop(values, where | ~where), absent)
        )
        assert torch.equal(*answers), f"the null of condition {entry.name!r} has two answers"
    return ", ".join(entry.name for entry in entries)


def _absent(model: Denoiser) -> str:
    """Another number where no value is given, or no token is, moves no answer by a bit."""
    entries = list(filter(_marks, model.conditions.values()))
    for entry in entries:
        marked = {**told(model, VALUES)}
        if entry.has_null:
            marked |= entry.drop(marked, torch.arange(VALUES) % 2 == 0)
        given = marked[_marks(entry)[0]]
        hidden = given.view(*given.shape, *(1,) * (marked[entry.name].dim() - given.dim()))
        loud = {**marked, entry.name: torch.where(hidden, marked[entry.name], _GARBAGE)}
        with _on_the_reference():
            moved = float((_answer(model, marked) - _answer(model, loud)).abs().max())
        assert moved == 0, f"condition {entry.name!r} is read where it is absent: answers move by {moved:.2g}"
    return ", ".join(entry.name for entry in entries)


def _marks(entry: Condition) -> list[str]:
    return [name for name in entry.keywords if name != entry.name]


def _padding(model: Denoiser) -> str:
    """Twice the length, of which the network may see nothing, whatever lies there."""
    entries = list(filter(_is_sequence, model.conditions.values()))
    values = told(model, VALUES)
    with _on_the_reference():
        whole = _answer(model, values)
        for entry in entries:
            mask = f"{entry.name}_mask"
            more = values[mask].shape[1]
            for filler in (0.0, _GARBAGE):
                longer = {
                    entry.name: pad(values[entry.name], (0, 0, 0, more), value=filler),
                    mask: pad(values[mask], (0, more)),
                }
                moved = float((_answer(model, {**values, **longer}) - whole).abs().max())
                assert moved == 0, (
                    f"condition {entry.name!r} reads its padding: answers move by {moved:.2g} at twice the length"
                )
    return ", ".join(entry.name for entry in entries)


def _mixed(model: Denoiser) -> str:
    """In float64, in which the batch's own rounding is out of sight."""
    exact = copy.deepcopy(model).double()
    values = told(exact, VALUES)
    whole = _answer(exact, values)
    worst = 0.0
    for i in range(VALUES):
        alone = _answer(exact, {name: value[i : i + 1] for name, value in values.items()})
        worst = max(worst, float((alone[0] - whole[i]).abs().max() / (1e-12 + whole.abs().max())))
    assert worst < 1e-6, f"an answer moves by {worst:.2g} when its text is asked for alone"
    return f"to {worst:.1g}"


@contextmanager
def _on_the_reference() -> Iterator[None]:
    """Runs the block without native kernels, whose order of sums may follow the shape."""
    before = os.environ.get("TRILEMMA_BACKEND")
    os.environ["TRILEMMA_BACKEND"] = "reference"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRILEMMA_BACKEND"]
        else:
            os.environ["TRILEMMA_BACKEND"] = before
