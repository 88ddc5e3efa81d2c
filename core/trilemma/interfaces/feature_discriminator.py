"""A discriminator that sees through the features of a trained denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype

SLOPE = 0.2
GROUPS = 8


class _Enough(Exception):
    """Raised when the last wanted feature is made; nothing after it is computed."""


class FeatureDiscriminator(nn.Module):
    """Logits D [B] of noised states by heads on the features of a denoiser, whose own weights stay as they are.

    A network that was trained to remove noise tells what noise hides from a discriminator that begins with none. Each
    layer's features [B, C, H, W] are normalised and go through a head of convolutions; the logit is the sum of the
    heads' means.

    Args:
        denoiser: the trained network; a copy of it is kept.
        layers: names of the modules whose outputs are its features, in the order in which they run.
        states: number of states of one judgement, such as a state and the one after it.
        width: channels of the heads.

    Raises:
        UsageError: for a layer that the network does not have or run, or one without features [B, C, H, W].

    References:
        Sauer et al., Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation,
        arXiv:2403.12015; Sauer et al., Projected GANs Converge Faster, arXiv:2111.01007.
    """

    def __init__(self, denoiser: Denoiser, layers: Sequence[str], states: int = 1, width: int = 64) -> None:
        super().__init__()
        if denoiser.draws or denoiser.takes_to:
            raise UsageError(
                "a discriminator sees through a denoiser that draws nothing and is told one time"
            )
        # Beside the parts that learn: neither saved nor trained with them.
        self._frozen = (denoiser.eval().requires_grad_(False),)
        self.layers = tuple(layers)
        known = dict(denoiser.named_modules())
        if missing := [name for name in self.layers if name not in known] or not self.layers:
            named = f"no layer {missing[0]!r}" if isinstance(missing, list) else "layers=[]"
            raise UsageError(
                f"a {type(denoiser).__name__} has {named} to see through; name modules of it, such as "
                f"{', '.join(list(known)[1:4])}"
            )
        self.width = width
        self.heads = nn.ModuleList(_head(states * count, width) for count in self._channels())

    @property
    def denoiser(self) -> Denoiser:
        """The trained network."""
        return self._frozen[0]

    def _apply(self, fn: Any, recurse: bool = True) -> FeatureDiscriminator:
        self.denoiser._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(
        self, states: Sequence[Tensor], times: Sequence[Tensor], cond: Mapping[str, Tensor]
    ) -> Tensor:
        """Returns the logits [B] of states [B, ...] at times [B]; of the conditions the denoiser takes its own."""
        found = [self.features(z, t, cond) for z, t in zip(states, times, strict=True)]
        total = torch.zeros(len(states[0]), dtype=states[0].dtype, device=states[0].device)
        for head, *maps in zip(self.heads, *found, strict=True):
            total = total + head(torch.cat(maps, 1)).flatten(1).mean(1)
        return total

    def features(self, z: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the normalised outputs [B, C, H, W] of the layers at states z [B, ...] and times t [B].

        Time 0 stands for the earliest at which the denoiser is asked.
        """
        network, found = self.denoiser, list[Tensor]()
        modules = dict(network.named_modules())

        def keep(module: nn.Module, _given: Any, output: Tensor) -> None:
            if module is not modules[self.layers[len(found)]] or output.dim() != 4:
                raise UsageError(
                    "a discriminator sees through features [B, C, H, W]; name blocks of convolutions, in the order in "
                    "which they run"
                )
            found.append(F.group_norm(output, GROUPS if output.shape[1] % GROUPS == 0 else 1))
            if len(found) == len(self.layers):
                raise _Enough

        hooks = [modules[name].register_forward_hook(keep) for name in self.layers]
        told = {name: cond[name] for name in network.keywords}
        asked = t.clamp_min(network.process.earliest_time).to(z.device, time_dtype(z.dtype))
        try:
            network(z, asked, **told)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _channels(self) -> list[int]:
        """The numbers of channels of the layers, from one call."""
        network = self.denoiser
        weight = next(network.parameters())
        z = torch.zeros(1, network.process.components * network.shape[0], *network.shape[1:]).to(weight)
        told: dict[str, Tensor] = {}
        for entry in network.conditions.values():
            told |= entry.drawn(1, torch.Generator().manual_seed(0)).take(torch.zeros(1, dtype=torch.int64))
        return [entry.shape[1] for entry in self.features(z, torch.ones(1), told)]


def _head(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width, 1, 3, padding=1),
    )
