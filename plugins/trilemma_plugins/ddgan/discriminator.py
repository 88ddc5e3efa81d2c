"""The discriminator of denoising steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.interfaces.condition import ClassCondition, Condition

SLOPE = 0.2
# Smallest height and width that are halved further.
SMALLEST = 4
FREQUENCIES = 32
# Of the numbers of flat data.
OCTAVES = 3


class Discriminator(nn.Module):
    """Logits D(z_s, z_t, t) [B] that z_s is a true neighbour of z_t.

    Both states go in as channels; t, and the classes, are added to the features of every block. Images are halved by
    residual blocks down to a side of 4; data of a few numbers go through a perceptron, beside sin and cos of 2ᵏπ times
    each of them, k < 3. No normalisation; the standard deviation over the minibatch is a last feature.

    Args:
        shape: of one state (C, H, W).
        conditions: of the generator; of these the discriminator is told the classes.
        width: of the first block; it doubles with each halving, up to eight times.

    References:
        Xiao et al., arXiv:2112.07804; Karras et al., Analyzing and Improving the Image Quality of StyleGAN,
        arXiv:1912.04958.
    """

    def __init__(self, shape: Sequence[int], conditions: Sequence[Condition], width: int) -> None:
        super().__init__()
        channels, *sides = shape
        classes = [entry for entry in conditions if isinstance(entry, ClassCondition)]
        embedding = 4 * width
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, embedding), nn.LeakyReLU(SLOPE), nn.Linear(embedding, embedding)
        )
        self.classes = nn.ModuleDict(
            {entry.name: nn.Embedding(entry.size + 1, embedding) for entry in classes}
        )
        self.flat = min(sides) < 2 * SMALLEST
        if self.flat:
            size, halvings = 2 * math.prod(shape) * (1 + 2 * OCTAVES), 3
        else:
            size, halvings = 2 * channels, int(math.log2(min(sides) / SMALLEST))
        self.inlet = nn.Linear(size, width) if self.flat else nn.Conv2d(size, width, 3, padding=1)
        blocks, current = [], width
        for _ in range(halvings):
            outgoing = current if self.flat else min(2 * current, 8 * width)
            blocks.append(_Block(current, outgoing, embedding, self.flat))
            current = outgoing
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Linear(current + 1, current)
        self.outlet = nn.Linear(current, 1)
        # With the smaller weights of PyTorch's default the states fade beside the time, and the generator wins.
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)

    def forward(
        self, states: Sequence[Tensor], times: Sequence[Tensor], cond: Mapping[str, Tensor]
    ) -> Tensor:
        """Returns the logits [B] of states z_s, z_t [B, ...] at times s, t [B]; it is told t and the conditions."""
        (z_s, z_t), t = states, times[1]
        exponent = torch.linspace(0, 3, FREQUENCIES, device=t.device, dtype=torch.float32)
        angles = t[:, None].float() * 10**exponent
        embedding = self.time(torch.cat([angles.cos(), angles.sin()], 1).to(z_s.dtype))
        for name, table in self.classes.items():
            embedding = embedding + table(cond[name])
        both = torch.cat([z_s, z_t], 1)
        h = self.inlet(_waves(both.flatten(1)) if self.flat else both)
        for block in self.blocks:
            h = block(h, embedding)
        h = h if self.flat else h.sum((2, 3)) / h[0, 0].numel() ** 0.5
        h = torch.cat([h, _spread(h)], 1)
        return self.outlet(F.leaky_relu(self.last(h), SLOPE)).squeeze(1)


class _Block(nn.Module):
    """h ↦ (s(h) + W₂ φ(W₁ φ(h) + V e))/√2; images are halved first."""

    def __init__(self, incoming: int, outgoing: int, embedding: int, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        if flat:
            self.first, self.second = nn.Linear(incoming, outgoing), nn.Linear(outgoing, outgoing)
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.first = nn.Conv2d(incoming, outgoing, 3, padding=1)
            self.second = nn.Conv2d(outgoing, outgoing, 3, padding=1)
            self.shortcut = nn.Conv2d(incoming, outgoing, 1, bias=False)
        self.inject = nn.Linear(embedding, outgoing)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        told = self.inject(embedding)
        inner = self.first(F.leaky_relu(h, SLOPE))
        inner = inner + (told if self.flat else told[:, :, None, None])
        inner = F.leaky_relu(inner, SLOPE)
        if not self.flat:
            inner, h = F.avg_pool2d(inner, 2), F.avg_pool2d(h, 2)
        return (self.shortcut(h) + self.second(inner)) / math.sqrt(2)


def _waves(x: Tensor) -> Tensor:
    """x and sin, cos of 2ᵏπ x, k = 0 … [B, N]."""
    angles = torch.cat([x * (math.pi * 2**octave) for octave in range(OCTAVES)], 1)
    return torch.cat([x, angles.sin(), angles.cos()], 1)


def _spread(h: Tensor) -> Tensor:
    """The mean standard deviation of features [B, C] over the batch [B, 1] (1710.10196)."""
    deviation = (h.float().var(0, unbiased=False) + 1e-8).sqrt().mean()
    return deviation.to(h.dtype).expand(len(h), 1)
