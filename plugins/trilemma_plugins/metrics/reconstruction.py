"""The loss of detail from images to their codes and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from trilemma.engine.autoencode import autoencode, autoencoder_of
from trilemma.errors import TrilemmaError, UsageError
from trilemma.evaluate import ModelMetric
from trilemma.evaluate.evaluator import feature_network, pixels_of, to_eight_bits
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.data_view import Latent
from trilemma.interfaces.denoiser import Denoiser
from trilemma_plugins.metrics.frechet import GaussianFit, frechet_distance
from trilemma_plugins.metrics.similarity import peak_signal_to_noise, structural_similarity


@dataclass(frozen=True)
class Reconstruction(ModelMetric):
    """Numbers of the images x̂ = decode(encode(x)) beside the images x, both of 256 grey levels:

        psnr: mean of 10 log₁₀(4/MSE) over the images, in decibels, of pixels in [−1, 1]; 100 at most an image
        ssim: mean structural similarity, under windows of 11×11 pixels
        frechet: distance of the features of all x̂ from those of the same x
        peak: the largest RMS of the normalised codes at a place, over images and channels, divided by the median
            place's. Some autoencoders store the scale of a whole image at one fixed place; a peak far above 1 says so.

    Args:
        features: a feature network for the Fréchet distance, or a trained one by name or folder; None for that of the
            evaluation, else the first default one that takes the images.

    Raises:
        UsageError: for features that are none; in measuring, for a model without an autoencoder.
    """

    features: str | None = None

    measures: ClassVar[tuple[type[nn.Module], ...]] = (Autoencoder, Denoiser)
    lower_is_better = False

    def __post_init__(self) -> None:
        if self.features is None:
            return
        if not isinstance(self.features, str):
            raise UsageError(
                f"reconstruction: features={self.features!r} is no name; give one, or leave it out"
            )
        try:
            feature_network(self.features, ())
        except TrilemmaError as error:
            raise UsageError(f"reconstruction: features: {error}") from error

    def seen_by(self, features: str | None) -> Reconstruction:
        return self if self.features is not None or features is None else replace(self, features=features)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor | None, batch_size: int, seed: int
    ) -> dict[str, float | str]:
        autoencoder = autoencoder_of(model)
        network = feature_network(self.features, tuple(images.shape[1:]))
        own = autoencoder.code_mean
        fits = GaussianFit(), GaussianFit()
        ratios, similarities, squares = [], [], torch.zeros((), dtype=torch.float64)
        for x in images.split(batch_size):
            view = Latent(autoencoder, tuple(x.shape[1:]))
            squares = squares + view.data(x.to(own.device)).double().square().mean(1).sum(0).cpu()
            back = pixels_of(to_eight_bits(autoencode(autoencoder, x)))
            ratios.append(peak_signal_to_noise(x, back).clamp_max(100))
            similarities.append(structural_similarity(x, back))
            for fit, seen in zip(fits, (x, back), strict=True):
                fit.update(network.observe(seen))
        places = (squares / len(images)).sqrt().flatten()
        if not places.isfinite().all():
            raise TrilemmaError("reconstruction: the codes are not finite; check the autoencoder's weights")
        mean_x, mean_y = (fit.mean for fit in fits)
        covariance_x, covariance_y = (fit.covariance for fit in fits)
        return {
            "psnr": float(torch.cat(ratios).mean()),
            "ssim": float(torch.cat(similarities).mean()),
            "frechet": frechet_distance(mean_x, covariance_x, mean_y, covariance_y),
            "peak": float(places.max() / places.median()),
            "images": float(len(images)),
            "features": network.identity,
        }
