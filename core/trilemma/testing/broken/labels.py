"""Classifiers and networks of features with one fault each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.features import Features
from trilemma.models.construction import Constructing
from trilemma.testing.exact_processes import AngleProcess

SHAPE = (1, 8, 8)
CLASSES = ("a", "b", "c")


class RightClasses(Classifier):
    """A linear classifier whose evidence fades with the signal."""

    def __init__(self) -> None:
        super().__init__(SHAPE, CLASSES, AngleProcess())
        with Constructing(3):
            self.linear = nn.Linear(64, 3)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        logits: Tensor = self.linear(z.flatten(1)) * (1 - t).to(z.dtype)[:, None]
        return logits


class OneTooMany(RightClasses):
    """Has a logit more than it has classes."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return nn.functional.pad(super().forward(z, t), (0, 1))


class CentredLogits(RightClasses):
    """Takes the mean of the batch away."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        logits = super().forward(z, t)
        return logits - logits.mean(0) if len(z) else logits


class ClampsItsStates(RightClasses):
    """Writes to the states that it classifies."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z.detach().clamp_(-0.5, 0.5) + (z - z.detach()), t)


class NoState(RightClasses):
    """Looks at the first state, which need not be there."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z, t) + 0 * z[0].sum()


class TimelessClasses(RightClasses):
    """Never hears the time."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z, torch.zeros_like(t))


class NoGradient(RightClasses):
    """Cuts the state off."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z.detach(), t) + 0 * z.flatten(1)[:, :1]


class HiddenScale(RightClasses):
    """Has a weight that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor(2.0)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z, t) * self.scale.to(z)


class DrawnLogits(RightClasses):
    """Draws from the global generator."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return super().forward(z, t) + 1e-6 * torch.rand(1).to(z)


class RightNetwork(Features):
    """The activations of a hidden layer, and logits of them."""

    def __init__(self, classes: tuple[str, ...] = CLASSES) -> None:
        super().__init__(SHAPE, classes)
        with Constructing(3):
            self.embed = nn.Linear(64, 16)
            self.classify = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.embed(images.flatten(1)).tanh()
        return features, self.classify(features)


class NamelessLogits(RightNetwork):
    """Has logits of classes without names."""

    def __init__(self) -> None:
        super().__init__(())


class IdleLayer(RightNetwork):
    """Has a layer that nothing goes through."""

    def __init__(self) -> None:
        super().__init__()
        with Constructing(4):
            self.idle = nn.Linear(2, 2)
