"""Small networks as others write them, for tests of fusing: each with the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@dataclass
class Case:
    """A network and a call of it; `kept` is another way than `network(*given, **named)` to get a tensor from it."""

    make: Callable[[], nn.Module]
    given: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    method: str = "__call__"

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        network = self.make().eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return network

    def run(self, network: Any) -> Tensor:
        answer = getattr(network, self.method)(*self.given, **self.named)
        return answer if isinstance(answer, Tensor) else answer[0]


class GroupNorm32(nn.GroupNorm):
    """As guided diffusion normalises: in float32 whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class TimestepSequential(nn.Sequential):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int, up: bool = False) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm32(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.updown = up
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(32, 2 * out))
        self.out_layers = nn.Sequential(
            GroupNorm32(8, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.updown:
            in_rest, in_conv = self.in_layers[:-1], self.in_layers[-1]
            h = in_conv(in_rest(x))
        else:
            h = self.in_layers(x)
        emb_out = self.emb_layers(emb).type(h.dtype)
        while len(emb_out.shape) < len(h.shape):
            emb_out = emb_out[..., None]
        out_norm, out_rest = self.out_layers[0], self.out_layers[1:]
        scale, shift = torch.chunk(emb_out, 2, dim=1)
        h = out_norm(h) * (1 + scale) + shift
        h = out_rest(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = GroupNorm32(8, channels), nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / c**0.5, dim=-1)
        h = self.proj_out(torch.einsum("bts,bcs->bct", weight, v))
        return (x + h).reshape(b, c, *spatial)


class Guided(nn.Module):
    """A U-Net as in guided diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 32))
        self.input_blocks = nn.ModuleList(
            [
                TimestepSequential(nn.Conv2d(3, 16, 3, padding=1)),
                TimestepSequential(ResBlock(16, 16), AttentionBlock(16)),
                TimestepSequential(nn.Conv2d(16, 16, 3, stride=2, padding=1)),
            ]
        )
        self.middle_block = TimestepSequential(ResBlock(16, 16), AttentionBlock(16), ResBlock(16, 16))
        self.output_blocks = nn.ModuleList(
            [
                TimestepSequential(ResBlock(32, 16), nn.Upsample(scale_factor=2)),
                TimestepSequential(ResBlock(32, 16, up=True)),
                TimestepSequential(ResBlock(32, 16)),
            ]
        )
        self.out = nn.Sequential(GroupNorm32(8, 16), nn.SiLU(), nn.Conv2d(16, 6, 3, padding=1))
        self.register_buffer("frequencies", torch.logspace(0, -4, 4))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        angles = timesteps[:, None].to(x.dtype) * self.frequencies
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        h, hs = x, []
        for module in self.input_blocks:
            h = module(h, emb)
            hs.append(h)
        h = self.middle_block(h, emb)
        for module in self.output_blocks:
            h = module(torch.cat([h, hs.pop()], dim=1), emb)
        return self.out(h.type(x.dtype))


class EncoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """A vision transformer as in torchvision, by torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 16, 4, stride=4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.layers, self.heads = nn.Sequential(EncoderBlock(16), EncoderBlock(16)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv_proj(x).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1)
        return self.heads(self.layers(tokens)[:, 0])


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _of(package: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(pytest.importorskip(package), name)(**options)


def _transformers_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **sizes))


_UNET = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1}
_TIMES = torch.tensor([3, 500])

CASES: dict[str, Case] = {
    "guided": Case(Guided, (drawn(2, 3, 8, 8), _TIMES)),
    "ViT": Case(ViT, (drawn(2, 3, 16, 16),)),
    "ViT of transformers": Case(_transformers_vit, (drawn(2, 3, 16, 16),)),
    "UNet2D": Case(
        _of(
            "diffusers",
            "UNet2DModel",
            **_UNET,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ),
        (drawn(2, 3, 16, 16), _TIMES),
        {"return_dict": False},
    ),
    "UNet2DCondition": Case(
        _of(
            "diffusers",
            "UNet2DConditionModel",
            **_UNET,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24,
        ),
        (drawn(2, 4, 16, 16), _TIMES, drawn(2, 7, 24)),
        {"return_dict": False},
    ),
    "AutoencoderKL decoder": Case(
        _of(
            "diffusers",
            "AutoencoderKL",
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
        ),
        (drawn(1, 4, 8, 8),),
        {"return_dict": False},
        method="decode",
    ),
    "DiT": Case(
        _of(
            "diffusers",
            "DiTTransformer2DModel",
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=10,
        ),
        (drawn(2, 4, 8, 8), _TIMES, torch.tensor([1, 2])),
        {"return_dict": False},
    ),
    "SD3": Case(
        _of(
            "diffusers",
            "SD3Transformer2DModel",
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=4,
        ),
        named={
            "hidden_states": drawn(2, 4, 8, 8),
            "timestep": _TIMES.float(),
            "encoder_hidden_states": drawn(2, 7, 32),
            "pooled_projections": drawn(2, 64),
            "return_dict": False,
        },
    ),
    "Flux": Case(
        _of(
            "diffusers",
            "FluxTransformer2DModel",
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
        ),
        named={
            "hidden_states": drawn(1, 16, 4),
            "timestep": torch.tensor([1.0]),
            "encoder_hidden_states": drawn(1, 7, 32),
            "pooled_projections": drawn(1, 32),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(7, 3),
            "return_dict": False,
        },
    ),
    "PixArt": Case(
        _of(
            "diffusers",
            "PixArtTransformer2DModel",
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            num_layers=2,
            cross_attention_dim=16,
            caption_channels=24,
            sample_size=8,
            use_additional_conditions=False,
        ),
        (drawn(2, 4, 8, 8),),
        {
            "encoder_hidden_states": drawn(2, 7, 24),
            "timestep": _TIMES,
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            "return_dict": False,
        },
    ),
}
