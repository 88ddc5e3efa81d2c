"""The trained network and how to read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.conversion import PARAMETERIZATIONS
from trilemma.errors import UsageError, nearest
from trilemma.integers import checked_integer
from trilemma.process import Process


@dataclass(frozen=True)
class Condition:
    """A condition that a denoiser takes by name.

    Attributes:
        name: keyword under which the denoiser receives it.
        size: number of classes; valid labels are 0 .. size − 1.
        null: label that means "no condition"; None where the network was trained without one.
        names: of the classes, which stand for their labels; none where they are not known.
    """

    name: str
    size: int
    null: int | None = None
    names: tuple[str, ...] = ()

    def encode(self, value: Any, indices: Tensor) -> Tensor:
        """Returns the labels [B] of the samples `indices` [B]: one value for all, or a sequence that is cycled through.

        Args:
            value: a label, the name of a class, or a sequence of either.
            indices: of the samples.

        Raises:
            UsageError: for a label that is not an integer in 0 .. size − 1, a name that no class has, or a missing
                value without a null class.
        """
        if value is None:
            if self.null is None:
                raise UsageError(
                    f"condition {self.name!r} is missing and this model has no null class; "
                    f"give a value from 0 to {self.size - 1}"
                )
            return torch.full_like(indices, self.null)
        labels = torch.as_tensor(self._labels(value), dtype=torch.int64).reshape(-1)
        return labels[indices.cpu() % len(labels)].to(indices.device)

    def _labels(self, value: Any) -> Sequence[int]:
        given = value.tolist() if hasattr(value, "tolist") else value
        entries = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        entries = [self._named(entry) if isinstance(entry, str) else entry for entry in entries]
        if not entries:
            raise UsageError(f"condition {self.name!r} is an empty list; give at least one value")
        return [
            checked_integer(entry, self.name, 0, self.size - 1, what=self._beyond(entry)) for entry in entries
        ]

    def _beyond(self, label: Any) -> str:
        """What is wrong with a label that is none: a class that a number names is meant by the number in quotes."""
        return (
            f'is a label out of range, "{label}" in quotes a name'
            if str(label) in self.names
            else "is out of range"
        )

    def _named(self, name: str) -> int:
        if name in self.names:
            return self.names.index(name)
        near = nearest(name, self.names)
        some = ", ".join(self.names[:5]) + (", …" if len(self.names) > 5 else "")
        known = (
            f"did you mean {near[0]!r}?" if near else f"its classes are {some}" if some else "give its number"
        )
        raise UsageError(f"{self.name}={name!r} is no class of this model; {known}")


def time_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of the times t that a network of this dtype is given: its own, and never below float32.

    Coefficients are made at times in float64. A network in float64 that is told a time rounded to float32 answers for
    another noise level than the one that its answer is read at.
    """
    return torch.promote_types(dtype, torch.float32)


class Denoiser(nn.Module):
    """A network that answers z_t with a prediction in its `parameterization`.

    Attributes:
        process: the noising process it was trained on.
        parameterization: what it puts out: x0, eps, v, score or flow.
        shape: shape (C, H, W) of one sample of the data.
        conditions: what it can be conditioned on, by name.
        components: of how many components a process may have for it; None for any number.
        fullgraph: whether it compiles into one graph (`torch.compile`); False for one that decides by values.
        card: the parsed model.toml it was loaded from, None for a network that was not.
    """

    components: tuple[int, ...] | None = None
    fullgraph: bool = True

    def __init__(
        self,
        process: Process,
        parameterization: str,
        shape: Sequence[int],
        conditions: Sequence[Condition] = (),
    ) -> None:
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise UsageError(
                f"unknown parameterization {parameterization!r}; expected one of {', '.join(PARAMETERIZATIONS)}"
            )
        self.process = process
        self.parameterization = parameterization
        self.shape = tuple(shape)
        self.conditions = {condition.name: condition for condition in conditions}
        self.card: Mapping[str, Any] | None = None

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """The prediction at state z [B, K·C, H, W] and times t [B] in [0, 1]; conditions are tensors [B]."""

    @property
    def usual_sampler(self) -> str:
        """Spec of the sampler that it is drawn with where no other is asked for: its card's, or ddim."""
        return str((self.card or {}).get("sampling", {}).get("sampler", "ddim"))

    @property
    def usual_guidance(self) -> str | None:
        """Spec of the guidance that its card has it drawn with under a condition; None where the card names none."""
        found = (self.card or {}).get("sampling", {}).get("guidance")
        return None if found is None else str(found)

    def name_classes(self, condition: str, names: Sequence[str]) -> None:
        """Lets the classes of a condition be asked for by name; a number of names that does not fit names none."""
        known = self.conditions.get(condition)
        if known is not None and known.size == len(names):
            self.conditions[condition] = replace(known, names=tuple(names))

    def own_tensors(self) -> list[Tensor]:
        """The network's parameters and buffers, without those of a learned process, which has a dtype of its own."""
        process = self.process
        learned = (*process.parameters(), *process.buffers()) if isinstance(process, nn.Module) else ()
        apart = {id(entry) for entry in learned}
        return [entry for entry in (*self.parameters(), *self.buffers()) if id(entry) not in apart]

    def with_identity_attention(self) -> Denoiser:
        """This network, its weights shared, with every self-attention map replaced by the identity (2403.17377).

        Raises:
            UsageError: for a network that has no self-attention, or does not say how.
        """
        raise UsageError(f"{type(self).__name__} has no self-attention to perturb; use another guidance")

    def encode(self, cond: Mapping[str, Any] | None, indices: Tensor) -> dict[str, Tensor]:
        """Every declared condition as labels [B] for the samples `indices` [B]; a missing one is the null class.

        Raises:
            UsageError: for a condition this denoiser does not take, or a value out of range.
        """
        cond = dict(cond or {})
        for name in cond:
            if name not in self.conditions:
                known = ", ".join(self.conditions) or "none"
                raise UsageError(f"unknown condition {name!r}; this model takes: {known}")
        return {name: c.encode(cond.get(name), indices) for name, c in self.conditions.items()}
