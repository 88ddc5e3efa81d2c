"""Checks of every training objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.process import Process
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.generators import keeps_global_generators
from trilemma.testing.installed import processes_of_one_component
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.outcome import Skipped
from trilemma.testing.updates import update_checks

BATCH = 16
# Methods of an objective that makes more of an update than one loss.
_OF_UPDATES = ("parts", "updates", "update_loss")
# Examples and seeds used in the search for a minimum.
MANY, SEEDS = 1024, 8
# Seeds of a mean, and the standard errors that it may be off: 1 false alarm in 5·10⁸.
REPEATS, ALLOWED = 48, 6.0


def objective_checks(objective: Objective) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong.

    A loss of one network is checked on exact models; updates, where the objective has written them, on small networks.
    """
    if type(objective).loss is not Objective.loss:
        yield from _loss_checks(objective)
    if any(getattr(type(objective), name) is not getattr(Objective, name) for name in _OF_UPDATES):
        yield from update_checks(objective)


def _loss_checks(objective: Objective) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "the loss is one finite number", lambda: _on_each(objective, _number)
    yield "gradients reach the network", lambda: _on_each(objective, _gradients)
    yield "the network it is given is called", lambda: _on_each(objective, _calls)
    yield "conditions reach the network", lambda: _on_each(objective, _conditions)
    yield "the generator decides the loss", lambda: _on_each(objective, _draws)
    yield "no global generator is drawn from", lambda: _on_each(objective, _generators)
    yield "inputs are left alone", lambda: _on_each(objective, _inputs)
    yield "without gradients it is the same", lambda: _on_each(objective, _without_gradients)
    yield "float32, bfloat16 and float64", lambda: _on_each(objective, _dtypes)
    yield "the loss is a mean over the batch", lambda: _on_each(objective, _mean)
    yield "the exact denoiser has the least loss", lambda: _on_each(objective, _least)


class Bent(nn.Module):
    """factor · f + shift of an exact denoiser's answer f; both can be learned.

    Attributes:
        seen: the conditions of each call.
        within: calls of the denoiser itself.
    """

    def __init__(self, model: Denoiser, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.factor, self.shift = nn.Parameter(torch.tensor(factor)), nn.Parameter(torch.tensor(shift))
        self.seen: list[Mapping[str, Tensor]] = []
        self.within = 0
        self._hook = model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.within += 1

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        self.seen.append(cond)
        answer: Tensor = self.model(z, t, **cond)
        return self.factor.to(answer.dtype) * answer + self.shift.to(answer.dtype)


def _model(process: Process) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(process, (-0.5, 0.1, 0.5), (0.01, 0.03, 0.015), None, "eps", (1, 2, 2))


def _on_each(objective: Objective, check: Callable[[Objective, GaussianMixtureDenoiser], str]) -> str:
    """A check on the exact model of a process of one component, and of two, where the objective takes it."""
    models = list(islice(_taken(objective, processes_of_one_component()), 1))
    models += _taken(objective, [PhaseProcess()], faults=not models)
    if not models:
        raise Skipped("it trains no exact model on a process that is installed")
    found = [check(objective, model) for model in models]
    return found[0]


def _taken(
    objective: Objective, processes: Iterable[Process], faults: bool = True
) -> Iterator[GaussianMixtureDenoiser]:
    """Exact models that the objective does not refuse; `faults` says whether one that it fails on is among them."""
    for process in processes:
        model = _model(process)
        try:
            _loss(objective, model)
        except TrilemmaError:
            continue
        except Exception:
            # A plugin may raise anything, and the checks report it.
            if not faults:
                continue
        yield model


def _data(model: GaussianMixtureDenoiser, count: int = BATCH) -> tuple[Tensor, dict[str, Tensor]]:
    """Data of the whole mixture [count, 1, 2, 2], and the null class of each."""
    x0 = model.draw(count, torch.Generator().manual_seed(5)).float().clamp(-1, 1)
    return x0, {"class": torch.full((count,), len(model.means))}


def _loss(
    objective: Objective,
    model: GaussianMixtureDenoiser,
    network: nn.Module | None = None,
    seed: int = 1,
    given: tuple[Tensor, dict[str, Tensor]] | None = None,
) -> Tensor:
    x0, cond = given or _data(model)
    return objective.loss(network or Bent(model), model, x0, cond, torch.Generator().manual_seed(seed))


def _number(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    for count in (BATCH, 1):
        loss = _loss(objective, model, given=_data(model, count))
        assert isinstance(loss, Tensor), f"the loss is no tensor but {type(loss).__name__}"
        assert loss.shape == (), f"the loss of {count} examples has shape {tuple(loss.shape)}, not ()"
        assert loss.is_floating_point(), f"the loss is {loss.dtype}"
        assert bool(loss.isfinite()), f"the loss of {count} examples is {loss.detach().item()}"
    return f"{loss.detach().item():.3g} of one example"


def _gradients(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    network = Bent(model, 0.7, 0.3)
    loss = _loss(objective, model, network)
    assert loss.requires_grad, "the loss does not depend on the network's weights"
    loss.backward()
    for name, weight in (("factor", network.factor), ("shift", network.shift)):
        gradient = weight.grad
        assert gradient is not None, f"no gradient reaches the {name} of the network's answer"
        assert bool(gradient.isfinite()), (
            f"the gradient of the {name} of the network's answer is {float(gradient)}"
        )
        assert float(gradient) != 0, f"the gradient of the {name} of the network's answer is 0"
    return "of its answer's factor and shift"


def _calls(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    """A wrapper of the denoiser stands before it in a distributed run, and gathers the gradients."""
    network = Bent(model)
    _loss(objective, model, network)
    assert network.seen, "it never calls the network"
    assert network.within == len(network.seen), "it calls the denoiser past the network that it is given"
    return f"{len(network.seen)} a loss"


def _conditions(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    x0, _ = _data(model)
    labels, null = torch.arange(BATCH) % len(model.means), len(model.means)
    network = Bent(model)
    _loss(objective, model, network, given=(x0, {"class": labels}))
    for cond in network.seen:
        assert set(cond) == {"class"}, f"the network is given the conditions {sorted(cond)}, not class"
        told = cond["class"]
        assert told.shape == labels.shape, f"the network is given labels of shape {tuple(told.shape)}"
        assert bool(((told == labels) | (told == null)).all()), (
            "a label is neither the example's nor the null one"
        )
    return "class"


def _draws(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    first, again, other = (_loss(objective, model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again), "a generator of the same seed gives another loss"
    assert not torch.equal(first, other), "a generator of another seed gives the same loss"
    return "and nothing else"


def _generators(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    return keeps_global_generators(lambda: _loss(objective, model))


def _inputs(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    x0, cond = _data(model)
    kept, labels = x0.clone(), cond["class"].clone()
    _loss(objective, model, given=(x0, cond))
    assert torch.equal(x0, kept), "it writes to the data"
    assert set(cond) == {"class"}, "it changes the conditions it is given"
    assert torch.equal(cond["class"], labels), "it writes to the labels"
    return "data and conditions"


@torch.no_grad()
def _without_gradients(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    """A validation loss is taken so."""
    found = _loss(objective, model)
    with torch.enable_grad():
        expected = _loss(objective, model).detach()
    off = float((found - expected).abs() / (1e-6 + expected.abs()))
    assert off < 1e-5, f"the loss is {off:.2g} off where no gradients are recorded"
    return f"to {off:.1g}"


def _dtypes(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    x0, cond = _data(model)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        try:
            loss = _loss(objective, model, given=(x0.to(dtype), cond))
        except TrilemmaError:
            raise
        except Exception as error:
            # A plugin may raise anything.
            raise AssertionError(f"on data in {dtype} it raises {type(error).__name__}: {error}") from error
        assert bool(loss.isfinite()), f"the loss of data in {dtype} is {loss.detach().item()}"
    return "finite"


@torch.no_grad()
def _mean(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    """Checks that the loss of a batch repeated four times has the mean of the batch's loss, but for the draws."""
    x0, cond = _data(model, 8)
    wide = x0.repeat(4, 1, 1, 1), {"class": cond["class"].repeat(4)}
    few, many = (
        torch.stack([_loss(objective, model, seed=seed, given=given) for seed in range(REPEATS)]).double()
        for given in ((x0, cond), wide)
    )
    error = math.sqrt(float(few.var() + many.var()) / REPEATS) + 1e-6 * float(few.abs().mean())
    off = float((many.mean() - few.mean()).abs()) / error
    assert off < ALLOWED, (
        f"the loss of a batch four times over is {float(many.mean()):.3g}, of the batch {float(few.mean()):.3g}, "
        f"{off:.0f} standard errors apart"
    )
    return f"{off:.1f} standard errors apart"


@torch.no_grad()
def _least(objective: Objective, model: GaussianMixtureDenoiser) -> str:
    """On data of the law that the denoiser is exact for, no answer that is bent has a smaller loss."""
    given = _data(model, MANY)

    def over_seeds(network: nn.Module) -> float:
        losses = [float(_loss(objective, model, network, seed, given)) for seed in range(SEEDS)]
        return sum(losses) / SEEDS

    exact = over_seeds(Bent(model))
    for factor, shift in ((0.7, 0.0), (1.3, 0.0), (1.0, 0.3), (1.0, -0.3)):
        bent = over_seeds(Bent(model, factor, shift))
        assert exact < bent, (
            f"the exact denoiser has the loss {exact:.4g}, {factor:g} times its answer plus {shift:g} has {bent:.4g}"
        )
    return f"{exact:.3g}"
