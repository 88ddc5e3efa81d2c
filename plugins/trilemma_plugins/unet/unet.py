"""The U-Net denoiser."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.condition import Condition, ImageCondition, conditions_from
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.patches import unshuffled
from trilemma_plugins.unet.attention import SelfAttending, SelfAttention
from trilemma_plugins.unet.blocks import (
    Downsample,
    ResidualBlock,
    TimeEmbedding,
    TimeInjection,
    Upsample,
    perceptron,
)
from trilemma_plugins.unet.conditioning import ImageChannels, SequenceContext, listener
from trilemma_plugins.unet.transformer import TransformerBlock

# The name of a module that hears a condition, and the keywords of its tensors.
_Part = tuple[str, tuple[str, ...]]


class UNet(Denoiser):
    """A U-Net of residual blocks with attention at chosen resolutions (2006.11239, 2105.05233, 2112.10752).

    Time, classes, scalars and vectors share one embedding e = e(t) + Σ e(condition); images are further channels of the
    input; sequences are the context of the cross-attention in transformer blocks. Every null is a parameter: a row of
    the table of a class, a vector, an image, or a sequence. With `patch` p the network works on the p×p
    pixel-unshuffled image.

    Args:
        process: the noising process; its K components are stacked on the input's channels.
        parameterization: x0, eps, v, score or flow.
        shape: (C, H, W) of the data.
        channels: width of each level, finest first; every level halves the resolution of the one before.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: resolutions (height of the feature map) with self-attention.
        transformer: resolutions with a transformer block: self-attention, cross-attention to the sequences among the
            conditions, and a feed-forward part. Without a sequence it has no cross-attention.
        classes: number of classes of a condition named class, whose label `classes` is the null; 0 for none.
        conditions: further conditions, as tables of their kind, name and options.
        time: how the embedding enters a block: "adagn" or "add".
        embedding: width of the embedding; 4 × the first level by default.
        patch: side p of the pixel-unshuffled patch; must divide height and width.
        head: channels of an attention head; must divide the width of levels with attention.
        groups: groups of every GroupNorm; must divide every width.
        dropout: probability in [0, 1).
        latent: standard normals that it draws for itself at every evaluation and adds to the embedding, as a generator
            does (2112.07804); 0 for none.
        takes_to: whether it is told the time that a row goes to, which it embeds as it does its own time.
        pooled: whether a sequence enters the embedding, too, by the mean of its tokens (2205.11487).

    Raises:
        UsageError: for sizes that do not divide, and for a sequence that no transformer block attends to.
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
        transformer: Sequence[int] = (),
        classes: int = 0,
        conditions: Sequence[Mapping[str, Any] | Condition] = (),
        time: TimeInjection = "adagn",
        embedding: int | None = None,
        patch: int = 1,
        head: int = 32,
        groups: int = 8,
        dropout: float = 0.0,
        latent: int = 0,
        takes_to: bool = False,
        pooled: bool = False,
    ) -> None:
        classes = checked_integer(classes, "unet: classes", 0, what="is no number of classes")
        shorthand = [{"kind": "class", "size": classes, "null": True}] if classes else []
        super().__init__(process, parameterization, shape, conditions_from([*shorthand, *conditions]))
        blocks, patch, head, groups = (
            checked_integer(count, f"unet: {name}", 1, what="is out of range")
            for name, count in {"blocks": blocks, "patch": patch, "head": head, "groups": groups}.items()
        )
        if embedding is not None:
            embedding = checked_integer(embedding, "unet: embedding", 1, what="is out of range")
        if not 0 <= dropout < 1:
            raise UsageError(f"unet: dropout={dropout} is no probability; give a number from 0 to below 1")
        _check_sizes(self.shape, channels, attention, transformer, time, patch, head, groups)
        width = embedding or 4 * channels[0]
        self.patch = patch
        self.time_embedding = TimeEmbedding(channels[0], width)
        latent = checked_integer(latent, "unet: latent", 0, what="is no number of normals")
        self.latent_embedding = perceptron(latent, width) if latent else None
        if self.latent_embedding is not None:
            # So that it may begin with the weights of a network that draws nothing, and answers as that one does.
            nn.init.zeros_(self.latent_embedding[-1].weight)
            nn.init.zeros_(self.latent_embedding[-1].bias)
        self.to_embedding = TimeEmbedding(channels[0], width) if takes_to else None
        self.takes_to = takes_to
        if latent:
            self.draws = {"latent": (latent,)}
        self._listen(channels[0], width)
        context = width if self._contexts else 0
        if pooled and not context:
            raise UsageError(
                "unet: pooled=True without a sequence to pool; give a condition of the kind text"
            )
        self.pooled_embedding = perceptron(width, width) if pooled else None
        if context and not transformer:
            raise UsageError(
                f"unet: no block attends to the sequence {self._contexts[0][1][0]!r}; "
                "give resolutions with a transformer block, or the form 'vector'"
            )

        def block(incoming: int, outgoing: int, resolution: int) -> nn.ModuleList:
            layers: list[nn.Module] = [ResidualBlock(incoming, outgoing, width, groups, time, dropout)]
            if resolution in attention:
                layers.append(SelfAttention(outgoing, head, groups))
            if resolution in transformer:
                layers.append(TransformerBlock(outgoing, context, head, groups))
            return nn.ModuleList(layers)

        pixels = patch * patch
        resolution = self.shape[1] // patch
        current = channels[0]
        told = sum(entry.shape[0] for entry in self.conditions.values() if isinstance(entry, ImageCondition))
        incoming = process.components * self.shape[0] + told
        self.inlet = nn.Conv2d(incoming * pixels, current, 3, padding=1)
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
        """Returns the prediction [B, C, H, W] at state z [B, K·C, H, W] and times t [B], under all that it is told."""
        embedding = self.time_embedding(t)
        if self.to_embedding is not None:
            embedding = embedding + self.to_embedding(cond["to"])
        if self.latent_embedding is not None:
            embedding = embedding + self.latent_embedding(cond["latent"].to(embedding.dtype))
        for part in self._heard(self._embeddings, cond):
            embedding = embedding + part
        contexts = self._heard(self._contexts, cond)
        context = torch.cat(contexts, 1) if contexts else None
        if self.pooled_embedding is not None:
            for (part, keywords), found in zip(self._contexts, contexts, strict=True):
                mean = getattr(self, part).pooled(found, cond[keywords[1]])
                embedding = embedding + self.pooled_embedding(mean)
        if self._images:
            z = torch.cat([z, *(image.to(z.dtype) for image in self._heard(self._images, cond))], 1)
        h = self.inlet(unshuffled(z, self.patch))
        skips = [h]
        for layers in self.down:
            h = _apply(layers, h, embedding, context)
            skips.append(h)
        h = _apply(self.middle, h, embedding, context)
        for layers in self.up:
            h = torch.cat([h, skips.pop()], dim=1)
            size = skips[-1].shape[-2:] if skips else h.shape[-2:]
            h = _apply(layers, h, embedding, context, (size[0], size[1]))
        return F.pixel_shuffle(self.outlet(F.silu(self.norm(h))), self.patch)

    def with_attention(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Denoiser:
        shared: dict[int, Any] = {id(entry): entry for entry in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, {**shared, id(self.process): self.process})
        layers = [layer for layer in twin.modules() if isinstance(layer, SelfAttending)]
        for layer in layers:
            layer.attend = attend
        return twin if layers else super().with_attention(attend)

    def _listen(self, features: int, width: int) -> None:
        """Makes the part that hears each condition, in the order of the conditions."""
        heard: dict[str, list[_Part]] = {"embedding": [], "image": [], "context": []}
        for name, condition in self.conditions.items():
            part = listener(condition, features, width, (self.shape[1], self.shape[2]))
            match part:
                case ImageChannels():
                    way = "image"
                case SequenceContext():
                    way = "context"
                case _:
                    way = "embedding"
            if hasattr(self, f"{name}_{way}") or name in self.draws:
                raise UsageError(f"unet: the name {name!r} of a condition is taken; give it another")
            self.add_module(f"{name}_{way}", part)
            heard[way].append((f"{name}_{way}", condition.keywords))
        self._embeddings, self._images, self._contexts = map(tuple, heard.values())

    def _heard(self, parts: Sequence[_Part], cond: Mapping[str, Tensor]) -> list[Tensor]:
        """What parts make of the tensors of their conditions."""
        return [getattr(self, part)(*(cond[name] for name in keywords)) for part, keywords in parts]


def _apply(
    layers: nn.Module,
    h: Tensor,
    embedding: Tensor,
    context: Tensor | None,
    size: tuple[int, int] = (0, 0),
) -> Tensor:
    for layer in layers.children():
        match layer:
            case ResidualBlock():
                h = layer(h, embedding)
            case TransformerBlock():
                h = layer(h, context)
            case Upsample():
                h = layer(h, size)
            case _:
                h = layer(h)
    return h


def _check_sizes(
    shape: Sequence[int],
    channels: Sequence[int],
    attention: Sequence[int],
    transformer: Sequence[int],
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
    for size in (*attention, *transformer):
        if size not in available:
            option = "attention" if size in attention else "transformer"
            raise UsageError(
                f"unet: {option}={size} is no resolution of this network; it has {sorted(available)}"
            )
        if size in attention and size in transformer:
            raise UsageError(
                f"unet: resolution {size} has a transformer block, which attends; take it out of attention"
            )
        if available[size] % head:
            raise UsageError(
                f"unet: head={head} must divide the width {available[size]} at resolution {size}"
            )
