"""Objectives of several networks with one fault each, and one without."""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update


class RightPair(Objective):
    """A critic that tells data from the model's answers to noise, beside a critic that never learns."""

    frozen: tuple[str, ...] = ("judge",)

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {name: nn.Sequential(nn.Flatten(), nn.Linear(4, 1)) for name in ("critic", "judge")}

    def updates(self) -> tuple[Update, ...]:
        return Update("critic", ("critic",)), Update("model")

    def update_loss(self, update: Update, step: Step) -> Loss:
        fake = self.answers(step)
        critic = step.parts["critic"]
        if update.name == "critic":
            loss = softplus(-critic(step.x0)).mean() + softplus(critic(fake)).mean()
            return loss + self.penalty(critic, step.x0), {"gap": (critic(step.x0) - critic(fake)).mean()}
        return softplus(-critic(fake)).mean() + softplus(-step.parts["judge"](fake)).mean()

    def answers(self, step: Step) -> Tensor:
        noise = torch.randn(step.x0.shape, generator=step.generator)
        answer: Tensor = step.network(step.denoiser.process.prior(noise), torch.ones(len(noise)))
        return answer

    def penalty(self, critic: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(critic(place).sum(), place, create_graph=True)
        return slope.square().mean()


class ForgottenPart(RightPair):
    """Neither trains one of its parts nor says that it is frozen."""

    frozen = ()


class DeafPart(RightPair):
    """Cuts the critic off from its loss, but for the answers of the model."""

    def update_loss(self, update: Update, step: Step) -> Loss:
        found = super().update_loss(update, step)
        if update.name == "critic":
            silent: Tensor = 0 * step.parts["critic"](step.x0).mean() + 1
            return silent
        return found


class MovesByHand(RightPair):
    """Lets the frozen part follow the critic in the loss."""

    def update_loss(self, update: Update, step: Step) -> Loss:
        found = super().update_loss(update, step)
        with torch.no_grad():
            pairs = zip(step.parts["judge"].parameters(), step.parts["critic"].parameters(), strict=True)
            for followed, entry in pairs:
                followed.lerp_(entry, 0.1)
        return found


class FillsTheGenerator(RightPair):
    """Lets the model receive gradients while the critic learns."""

    def update_loss(self, update: Update, step: Step) -> Loss:
        step.model.requires_grad_()
        return super().update_loss(update, step)


class OtherBeginning(RightPair):
    """Begins with other weights each time."""

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        found = super().parts(model)
        with torch.no_grad():
            next(found["critic"].parameters()).mul_(1 + random.SystemRandom().random())
        return found


class InfiniteGap(RightPair):
    """Logs a quotient by nothing."""

    def update_loss(self, update: Update, step: Step) -> Loss:
        found = super().update_loss(update, step)
        return (found[0], {"ratio": float("inf")}) if isinstance(found, tuple) else found


class DrawsElsewhere(RightPair):
    """Asks torch's global generator for its noise."""

    def answers(self, step: Step) -> Tensor:
        answer: Tensor = step.network(torch.randn(step.x0.shape), torch.ones(len(step.x0)))
        return answer


class ScalesItsExamples(RightPair):
    """Writes to the data."""

    def update_loss(self, update: Update, step: Step) -> Loss:
        step.x0.mul_(0.9)
        return super().update_loss(update, step)


class NoPenaltyInValidation(RightPair):
    """Leaves its penalty out where no gradients are recorded."""

    def penalty(self, critic: nn.Module, x: Tensor) -> Tensor:
        return super().penalty(critic, x) if torch.is_grad_enabled() else x.new_zeros(())


class BoundsNothing(RightPair):
    """Bounds a number that no log has."""

    def bounds(self) -> Mapping[str, float]:
        return {"gap": 1.0}
