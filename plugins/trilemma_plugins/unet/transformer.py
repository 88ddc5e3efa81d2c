"""A transformer block on the pixels of a feature map."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from trilemma_plugins.unet.attention import CrossAttention, TokenSelfAttention


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to a context and a feed-forward part, on the pixels as tokens (2112.10752).

        h = Linear(GN(x));  h += SA(LN(h));  h += CA(LN(h), context);  h += FF(LN(h));  x + Linear(h)

    The last projection starts at zero, so that a new block is the identity.

    Args:
        channels: C of the feature map.
        context: width of the context; 0 for a block without cross-attention.
        head: channels of an attention head.
        groups: of the GroupNorm.
    """

    def __init__(self, channels: int, context: int, head: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.inlet = nn.Linear(channels, channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = TokenSelfAttention(channels, head)
        if context:
            self.cross_norm = nn.LayerNorm(channels)
            self.cross = CrossAttention(channels, context, head)
        self.feed_norm = nn.LayerNorm(channels)
        self.feed = FeedForward(channels)
        self.outlet = nn.Linear(channels, channels)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)
        self.attends = bool(context)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Maps [B, C, H, W] and a context [B, M, E] to [B, C, H, W]."""
        h = self.inlet(self.norm(x).flatten(2).transpose(1, 2))
        h = h + self.attention(self.attention_norm(h))
        if self.attends:
            h = h + self.cross(self.cross_norm(h), context)
        h = h + self.feed(self.feed_norm(h))
        return cast(Tensor, x + self.outlet(h).transpose(1, 2).unflatten(2, x.shape[2:]))


class FeedForward(nn.Module):
    """A gated feed-forward part: W₂ (a ∘ GELU(b)) with (a, b) = W₁ h, of fourfold width (GEGLU, 2002.05202)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(channels, 8 * channels)
        self.gate = nn.GELU()
        self.outlet = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, L, C] to [B, L, C]."""
        value, gate = self.inlet(x).chunk(2, dim=-1)
        return cast(Tensor, self.outlet(torch.mul(value, self.gate(gate))))
