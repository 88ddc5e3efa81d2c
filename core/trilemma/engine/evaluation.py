"""Evaluates the branches of a guidance, each by its own network, and combines them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance


class Evaluation:
    """The guided output of a model, for batches of one size.

    Args:
        guidance: whose branches are evaluated, in one call a network.
        batch: B.
        shape: of one state, (K·C, ...).
        dtype: of the states. A network in another dtype reads and writes its own dtype through two more buffers.
        network_dtype: of the networks.
        device: of everything.
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
        self._full = len(networks) * batch
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        if network_dtype != dtype:
            self._input = torch.empty((self._full, *shape), dtype=network_dtype, device=device)
            self._output = torch.empty((self._full, *self.predicted), dtype=dtype, device=device)

    def __call__(self, states: Tensor, times: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Returns the outputs [g·B, ...] of the first g branches, one after the other, in the dtype of the states.

        Args:
            states: [g·B, ...], one replica a branch.
            times: [g·B].
            cond: conditions of at least g·B entries.

        Raises:
            TrilemmaError: where a network answers with another shape.
        """
        if self._input is None or self._output is None:
            return self._called(states, times, cond)
        count = len(states)
        self._input[:count].copy_(states)
        return self._output[:count].copy_(self._called(self._input[:count], times, cond))

    def combined(
        self, z: Tensor, t: float, outputs: Tensor, targets: Mapping[str, Tensor], evaluated: int
    ) -> Tensor:
        """Returns the combination [B, ...] of the outputs [g·B, ...] of g branches at states z [B, ...] and time t."""
        return self.guidance.combine(z, t, outputs.chunk(evaluated), targets)

    def _called(self, states: Tensor, times: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        count = states.shape[0]
        if len(self._calls) == 1:
            given = cond if count == self._full else {name: entry[:count] for name, entry in cond.items()}
            return self._checked(self._calls[0][0](states, times, **given), states)
        answers, begin = [], 0
        for network, branches in self._calls:
            end = min(begin + self.batch * branches, count)
            if end > begin:
                given = {name: cond[name][begin:end] for name in network.keywords}
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
