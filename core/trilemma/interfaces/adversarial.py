"""The non-saturating losses of a discriminator and of what it judges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.interfaces.update import Loss


def fooling_loss(logits: Tensor) -> Tensor:
    """Returns the mean of softplus(−D) over logits D [B] of what is drawn: the loss of the network that draws it."""
    return F.softplus(-logits).mean()


def discriminator_loss(
    judge: Callable[[Tensor], Tensor],
    true: Tensor,
    drawn: Tensor,
    *,
    gamma: float = 0.0,
    lazy: int = 1,
    number: int = 0,
) -> Loss:
    """Returns softplus(−D(true)) + softplus(D(drawn)) + (γ/2) ‖∇D(true)‖², means over the batch, and its parts.

    The penalty R1 is added in every `lazy`-th step, times `lazy`.

    Args:
        judge: D, of data [B, ...], that gives logits [B].
        true: data.
        drawn: what is drawn, without gradients.
        gamma: γ.
        lazy: steps from one penalty to the next.
        number: of steps done.

    References:
        Goodfellow et al., arXiv:1406.2661; Mescheder et al., Which Training Methods for GANs do actually Converge?,
        arXiv:1801.04406 (R1); Karras et al., arXiv:1912.04958 (every `lazy`-th step).
    """
    penalised = gamma > 0 and number % lazy == 0
    with torch.set_grad_enabled(torch.is_grad_enabled() or penalised):
        true = true.detach().requires_grad_(penalised)
        of_true, of_drawn = judge(true), judge(drawn)
        loss = F.softplus(-of_true).mean() + F.softplus(of_drawn).mean()
        scalars = {"gap": (of_true.mean() - of_drawn.mean()).detach()}
        if not penalised:
            return loss, scalars
        (slope,) = torch.autograd.grad(of_true.sum(), true, create_graph=True)
        penalty = gamma / 2 * slope.square().flatten(1).sum(1).mean()
        return loss + lazy * penalty, {**scalars, "r1": penalty.detach()}
