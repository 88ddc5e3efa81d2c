"""The network that makes codes of images, and images of codes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.tiling import tiled

# Bounds of log σ², which `bounded` keeps: e^±30 is in the range of float32 and of bfloat16.
LOWEST, HIGHEST = -30.0, 20.0


def bounded(log_variance: Tensor) -> Tensor:
    """Returns log σ² clamped to [−30, 20], so that σ and the divergence from N(0, I) stay finite."""
    return log_variance.clamp(LOWEST, HIGHEST)


class Autoencoder(nn.Module):
    """Two networks: q(c | x) = N(mean, e^log_variance) of an image x, and the image that a code c stands for.

    A diffusion model of codes is trained on normalised ones,

        ĉ = (c − μ) / s,   with μ and s of each channel over the codes of the whole training set,

    so that its data have mean 0 and variance 1. μ and s are buffers: they are part of the weights.

    Args:
        shape: shape (C, H, W) of the images that it is made for.
        channels: c of the codes.

    Attributes:
        shape: as given.
        code_mean: μ [c]; 0 until `normalise_over` has seen a training set.
        code_deviation: s [c]; 1 until then.
        card: the parsed model.toml it was loaded from, None for a network that was not.
        tile: side of the tiles in which `image` decodes codes that are larger, in places of the code; 0 for whole
            codes. A quarter of it overlaps; see `trilemma.interfaces.tiling`.

    References:
        Kingma & Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114; Rombach et al., High-Resolution Image
        Synthesis with Latent Diffusion Models, arXiv:2112.10752.
    """

    code_mean: Tensor
    code_deviation: Tensor

    def __init__(self, shape: Sequence[int], channels: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("code_mean", torch.zeros(channels))
        self.register_buffer("code_deviation", torch.ones(channels))
        self.card: Mapping[str, Any] | None = None
        self.tile: int = 0

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of the images that it is made for."""
        return self.shape

    @property
    def last_weight(self) -> Tensor | None:
        """The weight of the decoder's last layer, at which losses are weighed against each other; None names none."""
        return None

    @abstractmethod
    def code_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Returns the shape (c, h, w) of the codes of images of a shape (C, H, W).

        Raises:
            UsageError: for images that it cannot encode.
        """

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance [B, c, h, w] of the codes of images x [B, C, H, W] in [−1, 1]; see `bounded`.

        A deterministic autoencoder answers with the lowest log-variance.
        """

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] of codes [B, c, h, w] that are not normalised."""

    def log_likelihood(self, x: Tensor, code: Tensor) -> Tensor:
        """Returns log p(x | c) [B] in nats, of images x [B, C, H, W] and codes c [B, c, h, w] that are not normalised.

        An autoencoder that is trained on the bound of log p(x) has one. Of images on grey levels p is a probability,
        else a density.

        Raises:
            UsageError: for an autoencoder that has none.
        """
        raise UsageError(
            f"{type(self).__name__} has no likelihood p(x | code); give an autoencoder that writes log_likelihood"
        )

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance [B, c, h, w] of the normalised codes of images x [B, C, H, W]."""
        code, log_variance = self.encode(x)
        mean, deviation = self._statistics(code)
        return (code - mean) / deviation, log_variance - 2 * deviation.log()

    def normalised_code(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Returns the normalised codes [B, c, h, w] of images x: of the means, or with ξ ~ N(0, I) of samples.

            ĉ = (mean + e^{log_variance/2} ξ − μ) / s

        Args:
            x: images [B, C, H, W].
            noise: ξ [B, c, h, w]; None for the means.
        """
        code, log_variance = self.encode(x)
        if noise is not None:
            code = code + (log_variance / 2).exp() * noise
        mean, deviation = self._statistics(code)
        return (code - mean) / deviation

    def image(self, normalised: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] of normalised codes: decode(s ĉ + μ)."""
        code = self.own_code(normalised)
        if not self.tile or max(code.shape[2:]) <= self.tile:
            return self.decode(code)
        return tiled(self.decode, code, self.tile, self.tile // 4)

    def own_code(self, normalised: Tensor) -> Tensor:
        """Returns s ĉ + μ, what normalised codes [B, c, h, w] are to `decode` and `log_likelihood`."""
        mean, deviation = self._statistics(normalised)
        return normalised * deviation + mean

    @torch.no_grad()
    def normalise_over(self, batches: Iterable[Tensor]) -> None:
        """Sets μ and s to mean and deviation of the sampled codes of all images, a channel at a time, in float64.

            s² = Var(mean) + E[e^log_variance],   over images and places

        Args:
            batches: images [B, C, H, W], the whole training set.

        Raises:
            UsageError: for no images, or a channel that is the same in all codes.
        """
        count = 0
        total, squares = (torch.zeros_like(self.code_mean, dtype=torch.float64) for _ in range(2))
        for x in batches:
            code, log_variance = (part.double() for part in self.encode(x))
            count += code[:, 0].numel()
            total += code.sum((0, 2, 3))
            squares += (code.square() + log_variance.exp()).sum((0, 2, 3))
        if not count:
            raise UsageError("there are no images whose codes could be normalised; give the training set")
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        if not bool((deviation > 0).all()) or not bool(deviation.isfinite().all()):
            channel = int((~(deviation > 0) | ~deviation.isfinite()).nonzero()[0])
            raise UsageError(
                f"channel {channel} of the codes has the deviation {float(deviation[channel])}; train the "
                "autoencoder first, or give it fewer channels"
            )
        self.code_mean.copy_(mean)
        self.code_deviation.copy_(deviation)

    def _statistics(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """μ and s as [1, c, 1, 1]."""
        mean, deviation = (
            entry.to(code.dtype)[None, :, None, None] for entry in (self.code_mean, self.code_deviation)
        )
        return mean, deviation
