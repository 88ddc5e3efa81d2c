"""A classifier of noisy digits: p(y | z_t, t)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from trilemma.errors import UsageError
from trilemma.interfaces.classifier import Classifier
from trilemma.interfaces.process import Process
from trilemma.numerics.patches import unshuffled

SHAPE = (1, 28, 28)
NAMES = tuple("0123456789")
CLASSES = len(NAMES)


class NoisyDigitNetwork(Classifier):
    """Three convolutions whose normalised channels are scaled and shifted by the time, and two linear layers.

        h ← SiLU(GN(conv h)·(1 + a(t)) + b(t))   three times, 2×2 patches of 28 → 14 → 7 → 4
        logits = cos(πt/2) (W₂ SiLU(W₁ vec(h) + b₁) + b₂)

    It is smooth everywhere, since its gradient at z guides. The cosine is the signal that is left (α of the cosine
    schedule). It makes the logits fade with the signal, as the gradient through normalised channels would not.

    Args:
        shape: of the states, (1, 28, 28).
        classes: their names, ten.
        process: the noising process.

    Raises:
        UsageError: for another shape or number of classes.
    """

    def __init__(
        self,
        shape: Sequence[int] = SHAPE,
        classes: Sequence[str] = NAMES,
        process: Process | None = None,
    ) -> None:
        super().__init__(shape, classes, process)
        if self.shape != SHAPE or len(self.classes) != CLASSES:
            raise UsageError(
                f"the noisy digit network is for {CLASSES} classes of states of shape {SHAPE}, got "
                f"{len(self.classes)} of {self.shape}; choose another network"
            )
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(4, 32, 3, padding=1),
                nn.Conv2d(32, 64, 3, stride=2, padding=1),
                nn.Conv2d(64, 96, 3, stride=2, padding=1),
            ]
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width, affine=False) for width in (32, 64, 96))
        self.time = nn.Linear(16, 64)
        self.injections = nn.ModuleList(nn.Linear(64, 2 * width) for width in (32, 64, 96))
        self.embed = nn.Linear(96 * 4 * 4, 64)
        self.classify = nn.Linear(64, CLASSES)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Returns the logits [B, 10] of states z [B, 1, 28, 28] at times t [B]."""
        angles = t.to(z.dtype)[:, None] * (math.pi * torch.arange(1, 9, device=z.device, dtype=z.dtype))
        embedding = silu(self.time(torch.cat([angles.cos(), angles.sin()], 1)))
        h = unshuffled(z, 2)
        for convolution, norm, inject in zip(self.convolutions, self.norms, self.injections, strict=True):
            scale, shift = inject(embedding)[:, :, None, None].chunk(2, 1)
            h = silu(torch.addcmul(shift, norm(convolution(h)), 1 + scale))
        evidence = self.classify(silu(self.embed(h.flatten(1))))
        return (t.to(z.dtype)[:, None] * (math.pi / 2)).cos() * evidence
