"""A training run that kills itself at a chosen moment, for processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Imported once, so that a run starts as a fork.
NEEDED = (
    "torch",
    "torch._dynamo",
    "accelerate",
    "sklearn.datasets",
    "trilemma.models.loading",
    "trilemma.train",
    "trilemma_plugins.ddpm.process",
    "trilemma_plugins.digits.dataset",
    "trilemma_plugins.digits.coder",
    "trilemma_plugins.objectives.simple",
    "trilemma_plugins.points.adversarial",
    "trilemma_plugins.points.energy",
)


def run_until(recipe: dict[str, Any], folder: str, moment: tuple[str, int]) -> None:
    """Trains by a recipe until SIGKILL at a moment: before or after update n, or at the nth write of a checkpoint."""
    from trilemma.train import checkpoint, trainer
    from trilemma.train.recipe import make_recipe

    torch.set_num_threads(1)
    place, number = moment
    left = [number]

    def dying(call: Callable[..., Any], after: bool = False) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*given, **named)
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return instead

    if place == "update":
        trainer._Run._update = dying(trainer._Run._update, after=True)  # type: ignore[method-assign]
    elif place == "log":
        trainer.RunLog.record = dying(trainer.RunLog.record)  # type: ignore[method-assign]
    elif place == "checkpoint":
        checkpoint.save_file = dying(checkpoint.save_file, after=True)
    elif place == "sync":
        checkpoint._sync = dying(checkpoint._sync)
    elif place == "model":
        trainer.model_directory.save_model = dying(trainer.model_directory.save_model)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        trainer.train(make_recipe(recipe), Path(folder))
