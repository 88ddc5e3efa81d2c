"""Evaluates the branches of a guidance, each by its own network, and combines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from trilemma.engine.noise import NoiseSource, fill_normal
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance
from trilemma.numerics.normal import DRAW


class Evaluation:
    """The guided output of a model, for batches of one size.

    Args:
        guidance: whose branches are evaluated, in one call a network.
        batch: B.
        shape: of one state, (K·C, ...).
        dtype: of the states. A network in another dtype reads and writes its own dtype through two more buffers.
        network_dtype: of the networks.
        device: of everything.

    Attributes:
        draws: what the networks draw for themselves [G·B, ...], by name, as `draw` left it.
        takes_to: whether a network is told the time that a row goes to.

    Raises:
        UsageError: for networks that declare one draw in two shapes, or under the name of a condition.
    """

    def __init__(
        self,
        guidance: BoundGuidance,
        batch: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        network_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.guidance, self.batch = guidance, batch
        model = guidance.branches[0].network
        self.predicted = (shape[0] // model.process.components, *shape[1:])
        networks = [branch.network for branch in guidance.branches]
        self._calls = [(network, len(list(run))) for network, run in groupby(networks)]
        self._only = networks[0] if len(self._calls) == 1 else None
        self._full = len(networks) * batch
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        if network_dtype != dtype:
            self._input = torch.empty((self._full, *shape), dtype=network_dtype, device=device)
            self._output = torch.empty((self._full, *self.predicted), dtype=dtype, device=device)
        self.takes_to = any(network.takes_to for network in networks)
        self.draws = {
            name: torch.empty((self._full, *size), dtype=network_dtype, device=device)
            for name, size in _draws_of(self.networks).items()
        }

    def draw(self, noise: NoiseSource, indices: Tensor, number: int) -> None:
        """Draws for the networks what they want for themselves, the same for all branches, at an evaluation's number.

        Args:
            noise: where it is taken from.
            indices: of the samples [B], int64.
            number: of the row.
        """
        for place, drawn in enumerate(self.draws.values()):
            first, *others = drawn.unflatten(0, (-1, self.batch))
            fill_normal(noise, first, indices, number, DRAW + place)
            for other in others:
                other.copy_(first)

    def __call__(
        self, states: Tensor, times: Tensor, cond: Mapping[str, Tensor], to: Tensor | None = None
    ) -> Tensor:
        """Returns the outputs [g·B, ...] of the first g branches, one after the other, in the dtype of the states.

        Args:
            states: [g·B, ...], one replica a branch.
            times: [g·B].
            cond: conditions of at least g·B entries.
            to: [g·B], the times that the row goes to; needed where a network is told them.

        Raises:
            TrilemmaError: where a network answers with another shape.
        """
        if self._input is None or self._output is None:
            return self._called(states, times, cond, to)
        count = len(states)
        self._input[:count].copy_(states)
        return self._output[:count].copy_(self._called(self._input[:count], times, cond, to))

    def combined(
        self, z: Tensor, t: float, outputs: Tensor, targets: Mapping[str, Tensor], evaluated: int
    ) -> Tensor:
        """Returns the combination [B, ...] of the outputs [g·B, ...] of g branches at states z [B, ...] and time t."""
        return self.guidance.combine(z, t, outputs.chunk(evaluated), targets)

    def told(self, network: Denoiser, begin: int, end: int, to: Tensor | None) -> dict[str, Tensor]:
        """Returns what a network is told beside the conditions, for the entries from `begin` to `end` of [G·B].

        Raises:
            UsageError: where it takes the time that the row goes to, and none is known.
        """
        found = {name: self.draws[name][begin:end] for name in network.draws}
        if network.takes_to:
            if to is None:
                raise UsageError(
                    f"{type(network).__name__} is told where a step goes, and the sampler's own steps do not say; "
                    "call predict(z, t, parameterization, to)"
                )
            found["to"] = to[begin:end]
        return found

    def _called(self, states: Tensor, times: Tensor, cond: Mapping[str, Tensor], to: Tensor | None) -> Tensor:
        count = states.shape[0]
        only = self._only
        if only is not None:
            given = cond if count == self._full else {name: entry[:count] for name, entry in cond.items()}
            if self.draws or self.takes_to:
                given = {**given, **self.told(only, 0, count, to)}
            return self._checked(only(states, times, **given), states)
        answers, begin = [], 0
        for network, branches in self._calls:
            end = min(begin + self.batch * branches, count)
            if end > begin:
                given = {name: cond[name][begin:end] for name in network.keywords}
                given |= self.told(network, begin, end, to)
                own = states[begin:end]
                answers.append(self._checked(network(own, times[begin:end], **given), own))
            begin = end
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _checked(self, output: Tensor, states: Tensor) -> Tensor:
        expected = (states.shape[0], *self.predicted)
        if output.shape != expected:
            raise TrilemmaError(
                f"the denoiser answered a state of shape {tuple(states.shape)} with one of shape "
                f"{tuple(output.shape)}; expected {expected}"
            )
        return output

    @property
    def networks(self) -> list[Denoiser]:
        """The networks that are called."""
        return [network for network, _ in self._calls]


def _draws_of(networks: Sequence[Denoiser]) -> dict[str, tuple[int, ...]]:
    """The shapes of all draws of the networks, by name; the order decides their keys."""
    found: dict[str, tuple[int, ...]] = {}
    for network in networks:
        for name, shape in network.draws.items():
            size = tuple(shape)
            if found.setdefault(name, size) != size:
                raise UsageError(
                    f"the networks of this guidance draw {name!r} in shapes {found[name]} and {size}; give it one shape"
                )
            if name == "to" or any(name in other.keywords for other in networks):
                raise UsageError(
                    f"{type(network).__name__} draws {name!r}, the name of something else that networks are told; "
                    "give the draw another name"
                )
    return found
