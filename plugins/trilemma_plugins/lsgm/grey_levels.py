"""An autoencoder that says how probable each grey level of a pixel is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.checks import checked_integer
from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma_plugins.lsgm.logistics import expectation, log_probability


class GreyLevels(Autoencoder):
    """Any autoencoder, read as p(x | c) of pixels on 256 grey levels: mixtures of K discretised logistic laws.

    The network is built for images of 3 K C channels. Its encoder is shown the image in all of them, and what it
    decodes, scaled and shifted by a number a channel, are logits, means and log-scales of the mixtures. A decoded image
    is the mean of its law.

    Args:
        shape: (C, H, W) of the images.
        network: spec of the autoencoder.
        mixtures: K.
        options: of the network.

    Raises:
        UsageError: for fewer than one mixture, or what the network refuses.

    References:
        Salimans et al., PixelCNN++, arXiv:1701.05517; Vahdat & Kautz, NVAE, arXiv:2007.03898.
    """

    def __init__(
        self, shape: Sequence[int], *, network: str = "small-coder", mixtures: int = 3, **options: Any
    ) -> None:
        K = checked_integer(mixtures, "grey-levels: mixtures", 1, 64, what="is no number of mixtures")
        self_shape = tuple(shape)
        wide = (3 * K * self_shape[0], *self_shape[1:])
        inner, spec = lookup.build("autoencoder", network, shape=wide, **options)
        if not isinstance(inner, Autoencoder):
            raise UsageError(f"grey-levels: {spec} is no autoencoder; name one as network")
        super().__init__(shape, len(inner.code_mean))
        self.network, self.mixtures = inner, K
        self.factor = nn.Parameter(torch.ones(3, K))
        # Means spread over the levels, and as wide as the gaps between them.
        means = torch.linspace(-1, 1, K + 2)[1:-1]
        self.shift = nn.Parameter(torch.stack([torch.zeros(K), means, torch.full((K,), -2.0)]))

    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        return self.network.code_shape((3 * self.mixtures * shape[0], *shape[1:]))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.encode(x.repeat(1, 3 * self.mixtures, 1, 1))

    def decode(self, code: Tensor) -> Tensor:
        """Returns the means of p(x | c)."""
        return expectation(*self._laws(code))

    def log_likelihood(self, x: Tensor, code: Tensor) -> Tensor:
        laws = (entry.to(torch.promote_types(entry.dtype, torch.float32)) for entry in self._laws(code))
        return log_probability(x, *laws).flatten(1).sum(1)

    def _laws(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales [B, K, C, H, W]."""
        decoded = self.network.decode(code)
        table = decoded.unflatten(1, (3, self.mixtures, -1))
        factor, shift = (entry.view(1, 3, self.mixtures, 1, 1, 1) for entry in (self.factor, self.shift))
        logits, means, log_scales = (factor * table + shift).unbind(1)
        return logits, means, cast(Tensor, log_scales)
