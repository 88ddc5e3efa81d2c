"""Optimizers: their settings in a recipe, for all updates and for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from trilemma.errors import UsageError
from trilemma.interfaces.update import Update
from trilemma.train.table import LATER, Table, build_table
from trilemma.train.values import at_least, holds, one_of

_KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Optimizer(Table):
    """AdamW with linear warm-up over `warmup` steps and a cosine from `lr` to `final_lr`; `clip` bounds the norm of the
    gradient, inf leaves it as it is.

    Args:
        kind: "adamw", or "adam", whose decay is added to the gradient.
        updates: values that replace these in one update, by its name: the tables `[optimizer.NAME]`.
    """

    lr: float = 1e-3
    final_lr: float = 0.0
    warmup: int = 500
    weight_decay: float = 0.01
    betas: Sequence[float] = (0.9, 0.99)
    clip: float = 1.0
    kind: str = field(default="adamw", metadata=LATER)
    updates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata=LATER)

    prefix: ClassVar[str] = "optimizer."

    def __post_init__(self) -> None:
        super().__post_init__()
        holds("optimizer.lr", self.lr, 0 < self.lr <= 100, "a number above 0 up to 100")
        holds("optimizer.final_lr", self.final_lr, 0 <= self.final_lr <= self.lr, "a number from 0 to lr")
        at_least("optimizer.warmup", self.warmup, 0)
        kept = self.weight_decay >= 0 and self.lr * self.weight_decay < 1
        holds("optimizer.weight_decay", self.weight_decay, kept, "a number from 0 to below 1/lr")
        fit = len(self.betas) == 2 and all(
            isinstance(beta, int | float) and not isinstance(beta, bool) and 0 <= beta < 1
            for beta in self.betas
        )
        holds("optimizer.betas", self.betas, fit, "two numbers from 0 to below 1")
        holds("optimizer.clip", self.clip, self.clip > 0, "a number above 0, or inf for no clipping")
        one_of("optimizer.kind", self.kind, tuple(_KINDS))

    @classmethod
    def sorted_out(cls, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a parsed table whose tables by the name of an update stand under `updates`."""
        known = {entry.name for entry in dataclasses.fields(cls)} - {"updates"}
        own = {key: value for key, value in table.items() if key in known or not isinstance(value, Mapping)}
        if "updates" in own:
            raise UsageError(
                "recipe: optimizer.updates is no table; write [optimizer.NAME] for the update NAME"
            )
        return {**own, "updates": {key: value for key, value in table.items() if key not in own}}

    def of(self, update: Update) -> Optimizer:
        """Returns the settings of one update: these, then those of the objective, then `[optimizer.NAME]`.

        Raises:
            UsageError: for an unknown key, or a value that is out of range.
        """
        common = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "updates"}
        overridden = {**update.optimizer, **self.updates.get(update.name, {})}
        try:
            made: Optimizer = build_table(Optimizer, {**common, **overridden}, "optimizer.")
        except UsageError as error:
            raise UsageError(
                f"recipe: update {update.name}: {str(error).removeprefix('recipe: ')}"
            ) from error
        if made.updates:
            raise UsageError(
                f"recipe: [optimizer.{update.name}.{next(iter(made.updates))}] means nothing; drop it"
            )
        return made

    def check_names(self, updates: Sequence[Update]) -> None:
        """Raises UsageError for a table `[optimizer.NAME]` of an update that there is not."""
        names = [update.name for update in updates]
        for name in self.updates:
            if name not in names:
                raise UsageError(
                    f"recipe: [optimizer.{name}] is for no update of this objective; its updates: {', '.join(names)}"
                )

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimizer of some parameters."""
        made: torch.optim.Optimizer = _KINDS[self.kind](
            parameters, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay
        )
        return made
