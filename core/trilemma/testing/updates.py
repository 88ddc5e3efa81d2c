"""Checks of the objectives that say themselves what an update is: their parts, their updates, and what learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from trilemma.errors import TrilemmaError
from trilemma.interfaces.autoencoder import Autoencoder, bounded
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.column import ClassColumn, Values
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser, gradient_of
from trilemma.interfaces.features import Features
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.process import Process
from trilemma.interfaces.update import Step, Update, loss_and_scalars
from trilemma.models.construction import Constructing
from trilemma.numerics.conversion import PARAMETERIZATIONS
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.generators import keeps_global_generators
from trilemma.testing.installed import processes_of_one_component
from trilemma.testing.outcome import Skipped
from trilemma.train.log_names import check_scalars, named
from trilemma.train.parts import Parts, shared_parameters

BATCH, SHAPE, NAMES = 16, (1, 2, 2), ("a", "b", "c")
# Of the images whose codes have that shape.
PICTURE = (1, 4, 4)
CPU = torch.device("cpu")


def update_checks(objective: Objective) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check of an objective with an `update_loss` of its own, on small networks.

    Each is made on the first of a denoiser of every parameterization, a classifier, features, an autoencoder and a
    latent model that the objective does not refuse.
    """
    yield "parts and updates fit together", lambda: _parts(_run(objective))
    yield "parts begin alike again", lambda: _again(objective)
    yield "every part that should learn moves", lambda: _moves(_run(objective))
    yield "no other part moves", lambda: _stays(_run(objective))
    yield "gradients stay in their parts", lambda: _gradients(_run(objective))
    yield "losses and what they log are finite numbers", lambda: _numbers(_run(objective))
    yield "the generator is the only randomness", lambda: _draws(_run(objective))
    yield "data are left alone", lambda: _inputs(_run(objective))
    yield "a validation gives the same losses", lambda: _without_gradients(_run(objective))


class _Run:
    """An objective, the parts of a small model, and the examples of a step."""

    def __init__(self, objective: Objective, model: nn.Module) -> None:
        self.objective = objective
        self.parts = Parts(objective, model, 0, CPU)
        for module in self.parts.living.values():
            module.train()
        draws = torch.Generator().manual_seed(5)
        shape = SHAPE if self.parts.coder is None else PICTURE
        x0 = torch.rand(BATCH, *shape, generator=draws) * 2 - 1
        labels = torch.arange(BATCH) % len(NAMES)
        values = Values({LABEL: ClassColumn(labels, NAMES)}, torch.arange(BATCH))
        unseeded = torch.Generator()
        self.step = Step(model, model, self.parts.beside, x0, {}, values, unseeded)

    @property
    def updates(self) -> Sequence[Update]:
        return self.parts.updates

    def loss(
        self, update: Update, seed: int = 1, number: int = 0
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss of an update and what it logs, while its parts listen."""
        self.parts.listen(update)
        step = replace(self.step, generator=torch.Generator().manual_seed(seed), number=number)
        return loss_and_scalars(self.objective.update_loss(update, step))


def _models() -> Iterator[nn.Module]:
    with Constructing(3):
        for process in (*processes_of_one_component(), PhaseProcess()):
            for parameterization in PARAMETERIZATIONS:
                yield _Denoiser(process, parameterization)
                yield _Energy(process, parameterization)
        yield _Classifier(None)
        yield _Features()
        yield _Autoencoder()
        for process in processes_of_one_component():
            latent = _Denoiser(process, "eps")
            latent.view = Latent(_Autoencoder(PICTURE), PICTURE)
            yield latent


def _run(objective: Objective) -> _Run:
    """The first model that the objective takes; one that it fails on, where it takes none."""
    failing: nn.Module | None = None
    for model in _models():
        try:
            objective.parts(model)
        except TrilemmaError:
            continue
        run = _fitted(objective, model)
        try:
            for update in run.updates:
                run.loss(update)
        except TrilemmaError:
            continue
        except Exception:
            # A plugin may raise anything, and the checks report it.
            failing = failing or model
            continue
        return _fitted(objective, model)
    if failing is None:
        raise Skipped("it trains none of the small networks of this kit")
    return _fitted(objective, failing)


def _fitted(objective: Objective, model: nn.Module) -> _Run:
    try:
        return _Run(objective, model)
    except TrilemmaError as error:
        raise AssertionError(str(error)) from error


def _parts(run: _Run) -> str:
    for first, second in shared_parameters(run.parts.modules):
        raise AssertionError(f"the parts {first} and {second} have weights in common")
    assert run.updates, "it makes no update"
    names = ", ".join(f"{update.name} ({', '.join(update.learns)})" for update in run.updates)
    return f"on a {type(run.parts.model).__name__.strip('_')}: {names}"


def _again(objective: Objective) -> str:
    model = _run(objective).parts.model
    first, second = (Parts(objective, copy.deepcopy(model), 0, CPU).beside for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        third = Parts(objective, copy.deepcopy(model), 0, CPU).beside
    for name, module in first.items():
        for key, tensor in module.state_dict().items():
            for other in (second, third):
                assert torch.equal(tensor, other[name].state_dict()[key]), (
                    f"{key} of the part {name} begins with other numbers the next time"
                )
    return ", ".join(first) or "there are none beside the model"


def _moves(run: _Run) -> str:
    """Checks that a gradient reaches every part, over a few draws, once no layer is zero as it may begin."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in run.parts.modules.values():
            for weight in module.parameters():
                weight.add_(0.01 * torch.randn(weight.shape, generator=draws).to(weight))
    for update in run.updates:
        reached: set[str] = set()
        for seed in range(1, 4):
            loss, _ = run.loss(update, seed)
            assert loss.requires_grad, f"the loss of {update.name} depends on no weight that learns"
            loss.backward()
            for name in update.learns:
                found = [
                    entry.grad for entry in run.parts.modules[name].parameters() if entry.grad is not None
                ]
                if any(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in found):
                    reached.add(name)
            _forget(run)
        for name in update.learns:
            assert name in reached, (
                f"no gradient of the loss of {update.name} reaches {name}, which should learn"
            )
    return ", ".join(sorted({name for update in run.updates for name in update.learns}))


def _stays(run: _Run) -> str:
    """Checks that a loss changes no weights itself."""
    for update in run.updates:
        before = {name: copy.deepcopy(module.state_dict()) for name, module in run.parts.modules.items()}
        trained = {name: {key for key, _ in run.parts.modules[name].named_parameters()} for name in before}
        run.loss(update)
        for name, state in run.parts.modules.items():
            for key, tensor in state.state_dict().items():
                changed = not torch.equal(tensor, before[name][key])
                assert not (changed and key in trained[name]), (
                    f"the loss of {update.name} changes {key} of {name} itself; the optimizer does that"
                )
    return "before the optimizer"


def _gradients(run: _Run) -> str:
    for update in run.updates:
        loss, _ = run.loss(update)
        loss.backward()
        for name, module in run.parts.modules.items():
            stray = [key for key, entry in module.named_parameters() if entry.grad is not None]
            assert name in update.learns or not stray, (
                f"the update {update.name} leaves a gradient in {stray[0]} of {name}, which does not learn in it"
            )
        _forget(run)
    return "and none is left before the next update"


def _numbers(run: _Run) -> str:
    seen: list[str] = []
    for update in run.updates:
        for number in (0, 1, 7):
            loss, scalars = run.loss(update, number=number)
            check_scalars(update, scalars)
            for name, value in {"loss": loss, **scalars}.items():
                tensor = torch.as_tensor(value).detach()
                assert tensor.numel() == 1, f"{name} of {update.name} has shape {tuple(tensor.shape)}"
                assert math.isfinite(float(tensor)), f"{name} of {update.name} is {float(tensor)}"
            seen += [name for name in scalars if name not in seen]
    logged = {
        entry
        for update in run.updates
        for entry in named(run.updates, update, dict.fromkeys(["loss", *seen]))
    }
    for name in run.objective.bounds():
        assert name in logged, (
            f"it bounds {name!r}, which is not in the log; it logs {', '.join(sorted(logged))}"
        )
    return ", ".join(["loss", *seen])


def _draws(run: _Run) -> str:
    states = {name: copy.deepcopy(module.state_dict()) for name, module in run.parts.modules.items()}

    def all_losses(seed: int) -> list[float]:
        # A loss may write to buffers, such as running means; both begin with the same ones.
        for name, module in run.parts.modules.items():
            module.load_state_dict(states[name])
        return [float(run.loss(update, seed)[0].detach()) for update in run.updates]

    assert all_losses(1) == all_losses(1), "a generator of the same seed gives another loss"
    return "apart from " + keeps_global_generators(lambda: all_losses(1))


def _inputs(run: _Run) -> str:
    kept = run.step.x0.clone()
    for update in run.updates:
        run.loss(update)
        assert torch.equal(run.step.x0, kept), f"the loss of {update.name} writes to the data"
    return "x₀"


def _without_gradients(run: _Run) -> str:
    for module in run.parts.modules.values():
        module.eval()
    for update in run.updates:
        expected = float(run.loss(update)[0].detach())
        with torch.no_grad():
            found = float(run.loss(update)[0])
        off = abs(found - expected) / (1e-6 + abs(expected))
        assert off < 1e-5, f"the loss of {update.name} is {off:.2g} off where no gradients are recorded"
    return "where no gradients are recorded"


def _forget(run: _Run) -> None:
    for module in run.parts.modules.values():
        module.zero_grad(set_to_none=True)


class _Denoiser(Denoiser):
    """Two layers of the state and the time."""

    def __init__(self, process: Process, parameterization: str) -> None:
        super().__init__(process, parameterization, SHAPE)
        size = math.prod(SHAPE)
        self.inlet, self.outlet = nn.Linear(process.components * size + 1, 16), nn.Linear(16, size)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        told = torch.cat([z.flatten(1), t[:, None].to(z.dtype)], 1)
        answer: Tensor = self.outlet(nn.functional.silu(self.inlet(told)))
        return answer.view(-1, *SHAPE)


class _Energy(_Denoiser):
    """The gradient of the energy ½ ‖z − g‖² of another such network's answer g."""

    gradient = True

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        off = z[:, : SHAPE[0]] - super().forward(z, t, **cond)
        return off.square().flatten(1).sum(1) / 2

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return gradient_of(lambda state: self.energy(state, t, **cond), z)[:, : SHAPE[0]]


class _Classifier(Classifier):
    def __init__(self, process: Process | None) -> None:
        super().__init__(SHAPE, NAMES, process)
        self.linear = nn.Linear(math.prod(SHAPE), len(NAMES))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        answer: Tensor = self.linear(z.flatten(1)) * (1 - t[:, None].to(z.dtype))
        return answer


class _Features(Features):
    def __init__(self) -> None:
        super().__init__(SHAPE, NAMES)
        self.embed, self.classify = nn.Linear(math.prod(SHAPE), 4), nn.Linear(4, len(NAMES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.embed(images.flatten(1))
        return features, self.classify(features)


class _Autoencoder(Autoencoder):
    """Codes of half the sides, whose p(x | c) is normal."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        channels = SHAPE[0]
        super().__init__(shape, channels)
        self.down = nn.Conv2d(1, 2 * channels, 2, stride=2)
        self.up = nn.ConvTranspose2d(channels, 1, 2, stride=2)

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return SHAPE[0], shape[1] // 2, shape[2] // 2

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.down(x).chunk(2, 1)
        return mean, bounded(log_variance)

    def decode(self, code: Tensor) -> Tensor:
        answer: Tensor = self.up(code)
        return answer

    def log_likelihood(self, x: Tensor, code: Tensor) -> Tensor:
        return -(x - self.decode(code)).square().flatten(1).sum(1) / 2
