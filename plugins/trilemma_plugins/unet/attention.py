"""Attention of the U-Net: over pixels, over tokens, and from tokens to a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns softmax(q kᵀ/√D) v of queries [B, heads, L, D] and keys and values [B, heads, M, D]."""
    if torch.is_grad_enabled() and q.device.type == "cpu":
        # The fused kernel's backward on CPU is ten times slower than the plain formula at these lengths.
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttending(nn.Module):
    """A module that attends to its own input, in a way that can be changed.

    Attributes:
        attend: of queries, keys and values [B, heads, L, D], in place of softmax(q kᵀ/√D) v; None for that.
    """

    attend: Attend | None = None

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attended(q, k, v) if self.attend is None else self.attend(q, k, v)


class SelfAttention(SelfAttending):
    """Multi-head self-attention over the pixels of a feature map, with a residual that starts at zero."""

    def __init__(self, channels: int, head: int, groups: int) -> None:
        super().__init__()
        self.head = head
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C, H, W]."""
        batch, channels, height, width = x.shape
        packed = self.qkv(self.norm(x)).reshape(batch, 3, channels // self.head, self.head, height * width)
        # SDPA's fused kernel wants the head dimension contiguous; without the copy it falls back to bmm.
        h = self._attended(*packed.transpose(-1, -2).contiguous().unbind(1))
        return cast(Tensor, x + self.out(h.transpose(-1, -2).reshape(batch, channels, height, width)))


class TokenSelfAttention(SelfAttending):
    """Multi-head self-attention over tokens."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, L, C] to [B, L, C]."""
        q, k, v = _heads(self.qkv(x), 3, self.head)
        return cast(Tensor, self.out(self._attended(q, k, v).transpose(1, 2).flatten(2)))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to those of a context, of which all count."""

    def __init__(self, channels: int, context: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(context, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps tokens [B, L, C] and a context [B, M, E] to [B, L, C]."""
        (q,) = _heads(self.q(x), 1, self.head)
        k, v = _heads(self.kv(context), 2, self.head)
        return cast(Tensor, self.out(attended(q, k, v).transpose(1, 2).flatten(2)))


def _heads(packed: Tensor, parts: int, head: int) -> tuple[Tensor, ...]:
    """The parts [B, heads, L, D] of a packed projection [B, L, parts · heads · D]."""
    return packed.unflatten(-1, (parts, -1, head)).permute(2, 0, 3, 1, 4).unbind(0)
