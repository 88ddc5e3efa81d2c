"""A perceptron for data of a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition, Condition, ScalarCondition, conditions_from
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.process import Process

MOST_OCTAVES = 20


class MLP(Denoiser):
    """Residual blocks on the flattened state; time, class and numbers enter each of them through one embedding.

        h₀ = W z + b,    h ← h + W₂ SiLU((1 + s) W₁ SiLU(LN h) + d),    s, d = V e,    answer = W' SiLU(LN h) + b',

    with e = SiLU(e(t) + E[y] + Σ_c e_c); the factor 1 + s is needed near the data, where the answer is the state times
    a slope that grows without bound.

    The last layer of each block, of each e_c and of the network starts at zero; label `classes` is the null class of
    classifier-free guidance (2207.12598).

    Args:
        process: the noising process; its K components are flattened side by side.
        parameterization: x0, eps, v, score or flow.
        shape: (C, H, W) of the data.
        width: of the layers and the embedding.
        depth: blocks.
        classes: number of classes, 0 for an unconditional network.
        latent: standard normals that it draws for itself at every evaluation and adds to the embedding, as a generator
            does; 0 for none.
        conditions: further conditions, of the kind scalar, as tables of their kind, name and options.
        octaves: sin and cos of 2ᵏπ z, k = 0 … octaves − 1, go in beside the state z; answers that change over a small
            part of its range are then learned sooner (Tancik et al., arXiv:2006.10739). 0 for the state alone.

    Raises:
        UsageError: for a number out of range, or a condition of another kind.
    """

    def __init__(
        self,
        process: Process,
        parameterization: str = "v",
        shape: Sequence[int] = (2, 1, 1),
        *,
        width: int = 128,
        depth: int = 3,
        classes: int = 0,
        latent: int = 0,
        conditions: Sequence[Mapping[str, Any] | Condition] = (),
        octaves: int = 0,
    ) -> None:
        labels = [ClassCondition("class", size=classes, null=classes)] if classes else []
        told = conditions_from([*labels, *conditions])
        super().__init__(process, parameterization, shape, told)
        width = checked_integer(width, "mlp: width", 1, what="is no number of hidden units")
        depth = checked_integer(depth, "mlp: depth", 1, what="is no number of blocks")
        size = math.prod(self.shape)
        self.octaves = checked_integer(
            octaves, "mlp: octaves", 0, MOST_OCTAVES, what="is no number of octaves"
        )
        self.inlet = nn.Linear(process.components * size * (1 + 2 * octaves), width)
        self.time_embedding = _TimeEmbedding(width)
        self.class_embedding = nn.Embedding(classes + 1, width) if classes else None
        latent = checked_integer(latent, "mlp: latent", 0, what="is no number of normals")
        self.latent_embedding = nn.Linear(latent, width) if latent else None
        if latent:
            self.draws = {"latent": (latent,)}
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outlet = _zero(nn.Linear(width, size))
        self._numbers = [_scalar(condition) for condition in told[len(labels) :]]
        for condition in self._numbers:
            if hasattr(self, f"{condition.name}_embedding"):
                raise UsageError(f"mlp: the name {condition.name!r} of a condition is taken; give it another")
            self.add_module(f"{condition.name}_embedding", _NumberEmbedding(condition, width))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the prediction [B, C, H, W] at state z [B, K·C, H, W], times t [B], with `class` and `latent`."""
        embedding = self.time_embedding(t)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(cond["class"])
        if self.latent_embedding is not None:
            embedding = embedding + self.latent_embedding(cond["latent"])
        for condition in self._numbers:
            part = getattr(self, f"{condition.name}_embedding")
            embedding = embedding + part(*(cond[name] for name in condition.keywords))
        embedding = F.silu(embedding)
        h = self.inlet(self._with_waves(z.flatten(1)))
        for block in self.blocks:
            h = block(h, embedding)
        return self.outlet(F.silu(self.norm(h))).view(-1, *self.shape)

    def _with_waves(self, z: Tensor) -> Tensor:
        if not self.octaves:
            return z
        angles = torch.cat([z * (math.pi * 2**octave) for octave in range(self.octaves)], 1)
        return torch.cat([z, angles.sin(), angles.cos()], 1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.inject = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.last = _zero(nn.Linear(width, width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.inject(embedding).chunk(2, 1)
        inner = torch.addcmul(shift, self.first(F.silu(self.norm(h))), 1 + scale)
        return h + self.last(F.silu(inner))


class _TimeEmbedding(nn.Module):
    """W [cos ω_k t, sin ω_k t], ω_k geometric from 1 to 100."""

    def __init__(self, width: int, frequencies: int = 16) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mix = nn.Linear(2 * frequencies, width)

    def forward(self, t: Tensor) -> Tensor:
        # No buffer: a network cast to bfloat16 would round the frequencies.
        exponent = torch.linspace(0, 2, self.frequencies, device=t.device, dtype=torch.float32)
        angles = t[:, None].to(time_dtype(t.dtype)) * 10**exponent
        return self.mix(torch.cat([angles.cos(), angles.sin()], 1).to(self.mix.weight.dtype))


class _NumberEmbedding(nn.Module):
    """W₂ SiLU(W₁ [u, g] + b₁) + b₂ of u = (value − low)/(high − low), and g = 1; both 0 where nothing is given."""

    def __init__(self, condition: ScalarCondition, width: int) -> None:
        super().__init__()
        self.low, self.high = condition.low, condition.high
        self.first, self.last = nn.Linear(2, width), _zero(nn.Linear(width, width))

    def forward(self, value: Tensor, given: Tensor | None = None) -> Tensor:
        u = (value - self.low) / (self.high - self.low)
        seen = torch.stack([u, torch.ones_like(u)], 1).to(self.first.weight.dtype)
        if given is not None:
            seen = torch.where(given[:, None], seen, 0.0)
        return self.last(F.silu(self.first(seen)))


def _scalar(condition: Condition) -> ScalarCondition:
    if not isinstance(condition, ScalarCondition):
        raise UsageError(
            f"mlp: condition {condition.name!r} is of the kind {condition.kind}; give scalars, and classes as classes="
        )
    return condition


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
