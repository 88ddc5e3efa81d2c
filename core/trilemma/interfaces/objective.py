"""Training objectives: which networks learn in a training step, and from which losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.update import MODEL, Loss, Step, Update


class Objective:
    """A training objective: the loss of one network, or the parts and the updates of several.

    Where one network learns, write `loss`. Where others stand beside it, name them in `parts`, say in `updates` which
    learn when, and write `update_loss` in place of `loss`.

    Attributes:
        frozen: names of the parts that never learn, such as a teacher.
        averaged: names of the parts whose exponential moving average is kept; the written model is its average.
    """

    frozen: tuple[str, ...] = ()
    averaged: tuple[str, ...] = (MODEL,)

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Returns the parts beside the model, by name; called once, before the first step.

        Initial weights that are drawn here depend on the recipe's seed alone. A part may be loaded from a model on
        disk, or begin as a copy of `model`. Where it is the autoencoder of a latent model, see `autoencoder_of`,
        that one learns: x₀ are then images, not their codes, and the model is written with what it has become.
        """
        return {}

    def updates(self) -> tuple[Update, ...]:
        """Returns the updates of one step, in order: by default one, in which the model learns."""
        return (Update(MODEL),)

    def provides(self) -> tuple[str, ...]:
        """Returns the names of those conditions of the model whose values the objective makes itself.

        They are not read from the data set, which needs not have them, and are missing in `step.cond`: an update makes
        their tensors by `Condition.prepare`, of values drawn from the step's generator. Samples are asked for by them
        as by any condition.
        """
        return ()

    def bounds(self) -> Mapping[str, float]:
        """Returns bounds of numbers of the log, by their names in it: beyond one of them a run has diverged.

        The trainer compares the means since the last line of the log. It takes a run that has diverged back to its last
        checkpoint, with half the learning rate, and ends it the second time.
        """
        return {}

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the scalar loss of one update, or a pair of it and numbers for the log by name.

        Only the parts that learn in this update require gradients. An update that is made every n-th step, or a term
        that is added every n-th step, is weighted by n here, if it is to count as much as one in each. A derivative by
        an input is taken under `torch.enable_grad()`, since a validation records none.
        """
        return self.loss(step.network, step.denoiser, step.x0, step.cond, step.generator)

    def finish(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Completes the model that is written by what only the whole training set tells, such as statistics of codes.

        Args:
            model: with the weights that are written, in evaluation mode, without gradients.
            batches: the whole training set x₀ [B, C, H, W], in order.
        """
        return

    def loss(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        x0: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Returns the scalar loss of a denoiser on data x₀ [B, C, H, W] with conditions [B].

        Args:
            network: the module to call: the denoiser itself, or its wrapper in a distributed run.
            denoiser: the denoiser, for its process, parameterization and conditions.
            generator: CPU generator that every random draw comes from, so that a resumed run repeats it.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither a loss nor an update_loss; write one")


def check_drop(name: str, drop: float | Mapping[str, float]) -> None:
    """Refuses a drop of the objective `name` that is no probability, nor one by the name of each condition."""
    for key, probability in drop.items() if isinstance(drop, Mapping) else [("", drop)]:
        is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
        if not is_number or not 0 <= probability <= 1:
            which = f" of {key!r}" if key else ""
            raise UsageError(
                f"{name}: drop={probability}{which} is no probability; expected a number from 0 to 1"
            )


def drop_conditions(
    denoiser: Denoiser,
    cond: Mapping[str, Tensor],
    drop: float | Mapping[str, float],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Returns the conditions [B, ...], those of some examples replaced by the null ones.

    Args:
        denoiser: whose conditions they are.
        cond: tensors [B, ...] by keyword.
        drop: probability that all conditions of an example are dropped together; by names, the probability of each of
            these conditions, dropped by itself, so that a guidance may drop some of them.
        generator: that decides which.

    Raises:
        UsageError: for a condition without a null whose probability is positive, or an unknown name.

    References:
        Ho & Salimans, Classifier-Free Diffusion Guidance, arXiv:2207.12598.
    """
    if not drop or not cond:
        return dict(cond)
    batch = len(next(iter(cond.values())))
    together = None if isinstance(drop, Mapping) else torch.rand(batch, generator=generator) < drop
    for name in drop if isinstance(drop, Mapping) else ():
        if name not in denoiser.conditions:
            known = ", ".join(denoiser.conditions)
            raise UsageError(
                f"drop names the condition {name!r}, which the network does not take; it takes {known}"
            )
    result = dict(cond)
    for name, condition in denoiser.conditions.items():
        dropped = together
        if isinstance(drop, Mapping):
            dropped = torch.rand(batch, generator=generator) < drop.get(name, 0.0)
            if not drop.get(name):
                continue
        assert dropped is not None
        result |= condition.drop(cond, dropped.to(cond[condition.name].device))
    return result


def drawn_by_network(denoiser: Denoiser, like: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Returns the standard normals [B, ...] that a network draws for itself, by keyword; none for most networks.

    Args:
        denoiser: whose `draws` they are.
        like: states [B, ...], whose dtype and device they get.
        generator: on the CPU.
    """
    return {
        name: torch.randn(len(like), *shape, generator=generator).to(like)
        for name, shape in denoiser.draws.items()
    }
