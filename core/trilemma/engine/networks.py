"""One call, several networks: each branch of a guidance goes to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from trilemma.interfaces.denoiser import Denoiser


class Routed(Denoiser):
    """Evaluates the branches of a batch [G·B] with a network each; neighbours of one network share a call.

    Conditions and everything else are those of the first. A call with the first g branches alone needs no more
    than their networks.

    Args:
        networks: of each branch, the model itself first.
        batch: B of every call.
    """

    def __init__(self, networks: Sequence[Denoiser], batch: int = 1) -> None:
        first = networks[0]
        super().__init__(first.process, first.parameterization, first.shape, list(first.conditions.values()))
        self.networks = nn.ModuleList(networks)
        self._runs = [(network, len(list(run))) for network, run in groupby(networks)]
        self.batch = batch
        self.train(first.training)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answers, start = [], 0
        for network, count in self._runs:
            end = min(start + self.batch * count, len(z))
            if end > start:
                taken = {name: cond[name][start:end] for name in network.conditions if name in cond}
                answers.append(network(z[start:end], t[start:end], **taken))
            start = end
        return answers[0] if len(answers) == 1 else torch.cat(answers)


def routed(networks: Sequence[Denoiser], batch: int) -> Denoiser:
    """One network that evaluates each branch of a batch [G·B] with its own; the network itself where it is one."""
    first = networks[0]
    return first if all(network is first for network in networks) else Routed(networks, batch)


# A guidance's targets travel with the conditions, under names that no condition has.
_TARGET = "guidance."


def as_conditions(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Targets [B] under the names by which they travel."""
    return {_TARGET + name: target for name, target in targets.items()}


def targets_in(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The guidance's targets [B] among conditions."""
    return {name.removeprefix(_TARGET): entry for name, entry in cond.items() if name.startswith(_TARGET)}


def network_conditions(cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's conditions [G·B] among conditions."""
    return {name: entry for name, entry in cond.items() if not name.startswith(_TARGET)}
