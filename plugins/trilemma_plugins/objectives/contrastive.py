"""The loss of networks that match images with texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.features import Features
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update
from trilemma_plugins.objectives.moving import Border, check_border, moved


@dataclass(frozen=True)
class Contrastive(Objective):
    """−½ E log p(text | image) − ½ E log p(image | text), among those of the batch (InfoNCE).

    With the logits l [B, B] of a network that is told the B texts of B images, p(text j | image i) = softmax_j l_ij and
    p(image i | text j) = softmax_i l_ij. Images of one text share its target in equal parts.

    The fraction of the images whose own text is the likeliest of the batch is logged as `agreement`. In training an
    image is shifted and mirrored by chance.

    Args:
        text: name of the texts, in the data and among the conditions of the network.
        shift: most pixels that an image is shifted by, each way.
        border: "background" (−1), "white" (1) or "reflect": the pixels that a shift brings in.
        flip: whether half of the images are mirrored left to right.

    Raises:
        UsageError: for a number out of range or an unknown border; in training, for a network that is told no texts.

    References:
        van den Oord et al., Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748; Radford et
        al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
    """

    text: str = "text"
    shift: int = 0
    border: Border = "background"
    flip: bool = False

    def __post_init__(self) -> None:
        checked_integer(self.shift, "contrastive: shift", 0, what="is no number of pixels")
        check_border("contrastive", self.border)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the mean over the batch, and the fraction of the images whose text is the likeliest."""
        model = step.model
        if not isinstance(model, Features) or self.text not in model.conditions:
            raise UsageError(
                f"contrastive: a {type(model).__name__} is not told {self.text!r}; train features that are"
            )
        images = step.x0
        if model.training:
            images = moved(images, step.generator, self.shift, self.border, self.flip)
        logits = step.network(images, **step.cond)[1].float()
        same = alike(step.values[self.text], logits.device)
        target = same / same.sum(1, keepdim=True)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        right = same.gather(1, logits.argmax(1, keepdim=True)).mean()
        return loss, {"agreement": right}


def alike(texts: list[str | None], device: torch.device) -> Tensor:
    """Returns 1 where two of B texts are the same, else 0, float32 [B, B]."""
    places = {text: place for place, text in enumerate(texts)}
    which = torch.tensor([places[text] for text in texts], device=device)
    return (which[:, None] == which).float()
