"""The networks of a run: the model and the parts beside it, and which of them learn."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import MODEL, Update
from trilemma.models.construction import Constructing
from trilemma.numerics.step_keys import step_key
from trilemma.train.ema import Ema

# Stream of keys of initial weights beside the model's.
INITIAL = 9


class Parts:
    """The model and the parts beside it, by name, in the order in which the objective gives them.

    Args:
        objective: names the parts and the updates.
        model: the model, its initial weights made.
        seed: of the recipe; with the objective it decides the initial weights of the parts.
        device: where they go.

    Attributes:
        modules: all by name, `model` first.
        beside: all but the model.
        updates: of a step, in order.
        averages: moving averages by name, of the parts that have one.

    Raises:
        UsageError: for parts and updates that do not fit together.
    """

    def __init__(self, objective: Objective, model: nn.Module, seed: int, device: torch.device) -> None:
        with torch.device("cpu"), Constructing(step_key(seed, 0, INITIAL)):
            self.beside: Mapping[str, nn.Module] = dict(objective.parts(model))
        self.modules: dict[str, nn.Module] = {MODEL: model, **self.beside}
        self.updates = tuple(objective.updates())
        self._frozen = tuple(objective.frozen)
        self._averaged = tuple(objective.averaged)
        self.averages: dict[str, Ema] = {}
        _check(self)
        for name in self._frozen:
            self.modules[name].requires_grad_(False)
        self._learning = {
            name: [entry for entry in module.parameters() if entry.requires_grad]
            for name, module in self.modules.items()
        }
        for module in self.modules.values():
            module.to(device).eval()

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.modules[MODEL]

    @property
    def coder(self) -> str | None:
        """Name of the part that is the autoencoder of the model, whose codes the model learns while it learns."""
        view = getattr(self.model, "view", None)
        own = view.autoencoder if isinstance(view, Latent) else None
        return next((name for name, module in self.beside.items() if module is own), None)

    @property
    def living(self) -> dict[str, nn.Module]:
        """The parts that are not frozen, by name."""
        return {name: module for name, module in self.modules.items() if name not in self._frozen}

    def frozen_fingerprint(self) -> str:
        """Returns a digest of the weights of the frozen parts; "" where there are none."""
        if not self._frozen:
            return ""
        digest = hashlib.sha256()
        for name in self._frozen:
            for key, tensor in sorted(self.modules[name].state_dict().items()):
                digest.update(f"{name}/{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def average(self, decay: float, warmup: int) -> None:
        """Begins the moving averages of the parts that ask for one."""
        self.averages = {name: Ema(self.modules[name], decay, warmup) for name in self._averaged}

    def parameters(self, update: Update) -> list[nn.Parameter]:
        """Returns the parameters of the parts that learn in an update."""
        return [entry for name in update.learns for entry in self.modules[name].parameters()]

    def listen(self, update: Update) -> None:
        """Lets the parts that learn in an update receive gradients, and no other."""
        for name, parameters in self._learning.items():
            wanted = name in update.learns
            for parameter in parameters:
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)

    def train(self) -> None:
        """Puts the parts into training mode; frozen ones stay in evaluation mode."""
        for module in self.living.values():
            module.train()

    def evaluated(self, model: nn.Module) -> dict[str, nn.Module]:
        """Returns copies, in evaluation mode, of the averaged parts and the others themselves, beside this model.

        A model whose autoencoder is one of them sees its images through that.
        """
        found: dict[str, nn.Module] = {MODEL: model}
        for name, module in self.beside.items():
            found[name] = module.eval()
            if name in self.averages:
                found[name] = copy.deepcopy(module)
                found[name].load_state_dict(self.averages[name].state_dict())
        if self.coder is not None:
            assert isinstance(model, Denoiser) and isinstance(model.view, Latent)  # noqa: PT018
            model.view = replace(model.view, autoencoder=cast(Autoencoder, found[self.coder]))
        return found

    def final(self) -> dict[str, Tensor]:
        """Returns the weights that are written: the model's average where it has one."""
        return self.averages[MODEL].state_dict() if MODEL in self.averages else self.model.state_dict()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns all tensors that change, in groups for a checkpoint."""
        found = {f"part.{name}": module.state_dict() for name, module in self.living.items()}
        return found | {f"ema.{name}": average.state_dict() for name, average in self.averages.items()}

    def restore(self, groups: Mapping[str, dict[str, Tensor]]) -> None:
        """Restores what `tensors` gave.

        Raises:
            KeyError, RuntimeError: for tensors of other networks.
        """
        for name, module in self.living.items():
            module.load_state_dict(groups.get(f"part.{name}", {}))
        for name, average in self.averages.items():
            average.load_state_dict(groups[f"ema.{name}"])


def _check(parts: Parts) -> None:
    _check_modules(parts.beside)
    if repeated := _repeated([update.name for update in parts.updates]):
        raise UsageError(f"two updates are named {repeated!r}; give each a name of its own")
    known = ", ".join(parts.modules)
    learning = [name for update in parts.updates for name in update.learns]
    for what, names in (("learns", learning), ("frozen", parts._frozen), ("averaged", parts._averaged)):
        for name in names:
            if name not in parts.modules:
                raise UsageError(f"{what} names {name!r}, and the parts are {known}; correct the objective")
    for name, module in parts.modules.items():
        if name in parts._frozen and name in learning:
            raise UsageError(f"part {name!r} is frozen and learns; take it out of one")
        if name not in parts._frozen and name not in learning and any(True for _ in module.parameters()):
            raise UsageError(f"part {name!r} learns in no update; name it in frozen or in an update's learns")


def _check_modules(beside: Mapping[str, nn.Module]) -> None:
    for name, module in beside.items():
        if not isinstance(name, str) or not name.isidentifier() or name == MODEL:
            raise UsageError(
                f"the part {name!r} needs another name: letters, digits and _, and not {MODEL!r}"
            )
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"the part {name!r} is a {type(module).__name__}, no torch.nn.Module; correct it"
            )


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def shared_parameters(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Yields pairs of names of modules that have a parameter in common."""
    owner: dict[int, str] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            first = owner.setdefault(id(parameter), name)
            if first != name:
                yield first, name
