"""The U-Net denoiser."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma_plugins.unet.blocks import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    TimeEmbedding,
    TimeInjection,
    Upsample,
)


class UNet(Denoiser):
    """A U-Net of residual blocks with self-attention at chosen resolutions (2006.11239, 2105.05233).

    Time and class share one embedding e = e(t) + E[y]; label `classes` is the null class of classifier-free
    guidance (2207.12598). With `patch` p the network works on the p×p pixel-unshuffled image.

    Args:
        process: the noising process; its K components are stacked on the input's channels.
        parameterization: x0, eps, v, score or flow.
        shape: (C, H, W) of the data.
        channels: width of each level, finest first; every level halves the resolution of the one before.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: resolutions (height of the feature map) with self-attention.
        classes: number of classes, 0 for an unconditional network.
        time: how the embedding enters a block: "adagn" or "add".
        embedding: width of the embedding; 4 × the first level by default.
        patch: side p of the pixel-unshuffled patch; must divide height and width.
        head: channels of an attention head; must divide the width of levels with attention.
        groups: groups of every GroupNorm; must divide every width.
        dropout: probability in [0, 1).

    Raises:
        UsageError: for sizes that do not divide.
    """

    def __init__(
        self,
        process: Process,
        parameterization: str = "v",
        shape: Sequence[int] = (1, 28, 28),
        *,
        channels: Sequence[int] = (64, 128),
        blocks: int = 2,
        attention: Sequence[int] = (),
        classes: int = 0,
        time: TimeInjection = "adagn",
        embedding: int | None = None,
        patch: int = 1,
        head: int = 32,
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        classes = checked_integer(classes, "unet: classes", 0, what="is no number of classes")
        conditions = [ClassCondition("class", size=classes, null=classes)] if classes else []
        super().__init__(process, parameterization, shape, conditions)
        blocks, patch, head, groups = (
            checked_integer(count, f"unet: {name}", 1, what="is out of range")
            for name, count in {"blocks": blocks, "patch": patch, "head": head, "groups": groups}.items()
        )
        if embedding is not None:
            embedding = checked_integer(embedding, "unet: embedding", 1, what="is out of range")
        if not 0 <= dropout < 1:
            raise UsageError(f"unet: dropout={dropout} is no probability; give a number from 0 to below 1")
        _check_sizes(self.shape, channels, attention, time, patch, head, groups)
        width = embedding or 4 * channels[0]
        self.patch = patch
        self.time_embedding = TimeEmbedding(channels[0], width)
        self.class_embedding = nn.Embedding(classes + 1, width) if classes else None

        def block(incoming: int, outgoing: int, resolution: int) -> nn.ModuleList:
            layers: list[nn.Module] = [ResidualBlock(incoming, outgoing, width, groups, time, dropout)]
            if resolution in attention:
                layers.append(SelfAttention(outgoing, head, groups))
            return nn.ModuleList(layers)

        pixels = patch * patch
        resolution = self.shape[1] // patch
        current = channels[0]
        self.inlet = nn.Conv2d(process.components * self.shape[0] * pixels, current, 3, padding=1)
        skips = [current]
        resolutions = []
        self.down = nn.ModuleList()
        for level, target in enumerate(channels):
            if level:
                self.down.append(nn.ModuleList([Downsample(current)]))
                resolution = (resolution + 1) // 2
                skips.append(current)
            resolutions.append(resolution)
            for _ in range(blocks):
                self.down.append(block(current, target, resolution))
                current = target
                skips.append(current)

        self.middle = nn.ModuleList(
            [
                *block(current, current, resolution),
                ResidualBlock(current, current, width, groups, time, dropout),
            ]
        )

        self.up = nn.ModuleList()
        for level in reversed(range(len(channels))):
            for index in range(blocks + 1):
                layers = block(current + skips.pop(), channels[level], resolutions[level])
                current = channels[level]
                if index == blocks and level:
                    layers.append(Upsample(current, channels[level - 1]))
                    current = channels[level - 1]
                self.up.append(layers)

        self.norm = nn.GroupNorm(groups, current)
        self.outlet = nn.Conv2d(current, self.shape[0] * pixels, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the prediction [B, C, H, W] at state z [B, K·C, H, W], times t [B] and labels `class` [B]."""
        embedding = self.time_embedding(t)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(cond["class"])
        h = self.inlet(F.pixel_unshuffle(z, self.patch))
        skips = [h]
        for layers in self.down:
            h = _apply(layers, h, embedding)
            skips.append(h)
        h = _apply(self.middle, h, embedding)
        for layers in self.up:
            h = torch.cat([h, skips.pop()], dim=1)
            size = skips[-1].shape[-2:] if skips else h.shape[-2:]
            h = _apply(layers, h, embedding, (size[0], size[1]))
        return F.pixel_shuffle(self.outlet(F.silu(self.norm(h))), self.patch)

    def with_attention(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Denoiser:
        shared: dict[int, Any] = {id(entry): entry for entry in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, {**shared, id(self.process): self.process})
        layers = [layer for layer in twin.modules() if isinstance(layer, SelfAttention)]
        for layer in layers:
            layer.attend = attend
        return twin if layers else super().with_attention(attend)


def _apply(layers: nn.Module, h: Tensor, embedding: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
    for layer in layers.children():
        match layer:
            case ResidualBlock():
                h = layer(h, embedding)
            case Upsample():
                h = layer(h, size)
            case _:
                h = layer(h)
    return h


def _check_sizes(
    shape: Sequence[int],
    channels: Sequence[int],
    attention: Sequence[int],
    time: str,
    patch: int,
    head: int,
    groups: int,
) -> None:
    if time not in ("adagn", "add"):
        raise UsageError(f"unet: unknown time={time!r}; expected 'adagn' or 'add'")
    if len(shape) != 3:
        raise UsageError(f"unet: shape {tuple(shape)} must be (C, H, W)")
    if not channels or any(width < 2 or width % groups for width in channels):
        raise UsageError(
            f"unet: every width of channels={list(channels)} must be a multiple of groups={groups}"
        )
    if shape[1] % patch or shape[2] % patch:
        raise UsageError(f"unet: patch={patch} must divide the image size {shape[1]}×{shape[2]}")
    resolution = shape[1] // patch
    available = {}
    for width in channels:
        available[resolution] = width
        resolution = (resolution + 1) // 2
    for size in attention:
        if size not in available:
            raise UsageError(
                f"unet: attention={size} is no resolution of this network; it has {sorted(available)}"
            )
        if available[size] % head:
            raise UsageError(
                f"unet: head={head} must divide the width {available[size]} at resolution {size}"
            )
