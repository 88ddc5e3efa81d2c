"""Checks of every autoencoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from trilemma.interfaces.autoencoder import HIGHEST, LOWEST, Autoencoder
from trilemma.testing import networks
from trilemma.testing.generators import keeps_global_generators

Check = tuple[str, Callable[[], str]]

# Images whose codes are normalised.
_IMAGES = 256


def autoencoder_checks(autoencoder: Autoencoder) -> Iterator[Check]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    network = copy.deepcopy(autoencoder).eval()
    images = networks.pictures(network.shape, dtype=network.code_mean.dtype)
    yield "codes and images have the shapes that it says", lambda: _shapes(network, images)
    for name, check in (
        ("an image's code does not depend on its batch", networks.asked_alone),
        ("images are left alone", networks.left_alone),
        ("NaN stays in its image", networks.asked_with_nan),
        ("an empty batch gives none", networks.asked_for_nothing),
        ("float32, bfloat16 and float64", networks.asked_in_dtypes),
        ("gradients reach every weight", networks.learns),
    ):
        yield name, partial(check, network, _there_and_back, images)
    yield (
        "no global generator is drawn from",
        lambda: keeps_global_generators(lambda: _there_and_back(network, images)),
    )
    yield "log-variances are bounded", lambda: _bounded(network, images)
    yield "normalised codes have mean 0 and deviation 1", lambda: _normalised(network)
    yield "the normalisation is part of the weights", lambda: _saved(network, images)
    yield "an image comes back from its normalised code", lambda: _inverse(network, images)


def _there_and_back(network: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """Mean and log-variance of the codes of images, and the images of the means."""
    autoencoder = cast(Autoencoder, network)
    mean, log_variance = autoencoder.encode(images)
    return mean, log_variance, autoencoder.decode(mean)


@torch.no_grad()
def _shapes(network: Autoencoder, images: Tensor) -> str:
    code = tuple(network.code_shape(network.shape))
    assert len(code) == 3, f"code_shape({network.shape}) is {code}, not (c, h, w)"
    assert code[0] == len(network.code_mean), (
        f"codes have {code[0]} channels, their normalisation {len(network.code_mean)}"
    )
    for count in (1, len(images)):
        mean, log_variance, back = _there_and_back(network, images[:count])
        for what, found, expected in (
            ("means", mean, (count, *code)),
            ("log-variances", log_variance, (count, *code)),
            ("images of codes", back, (count, *network.shape)),
        ):
            assert tuple(found.shape) == expected, f"{what} have shape {tuple(found.shape)}, not {expected}"
            assert bool(found.isfinite().all()), f"{what} are not finite"
    return f"{tuple(network.shape)} to {code}"


@torch.no_grad()
def _bounded(network: Autoencoder, images: Tensor) -> str:
    low = high = 0.0
    for scale in (1.0, 1e3, 1e6):
        _, log_variance = network.encode(images * scale)
        low, high = min(low, float(log_variance.min())), max(high, float(log_variance.max()))
    assert low >= LOWEST and high <= HIGHEST, (  # noqa: PT018
        f"log-variances of loud images reach from {low:.3g} to {high:.3g}; clamp them by `bounded`"
    )
    return f"{low:.3g} to {high:.3g}"


@torch.no_grad()
def _normalised(network: Autoencoder) -> str:
    """Over the images by which it is normalised; the deviation is that of samples, which the draws miss a little."""
    other = copy.deepcopy(network).double()
    images = networks.pictures(other.shape, _IMAGES, torch.float64)
    other.normalise_over(images.split(32))
    mean, log_variance = other.encode(images)
    s = other.code_deviation[:, None, None]
    centred = (mean - other.code_mean[:, None, None]) / s
    variance = (centred.square() + log_variance.exp() / s.square()).mean((0, 2, 3))
    off = float(centred.mean((0, 2, 3)).abs().max()), float((variance - 1).abs().max())
    assert off[0] < 1e-6, f"the mean of its normalised codes is {off[0]:.2g}"
    assert off[1] < 1e-6, f"the variance of its normalised codes is {off[1]:.2g} off 1"
    code = other.normalised_code(images)
    assert float((code - centred).abs().max()) < 1e-6, "normalised_code is not (mean − μ)/s"
    return f"to {max(off):.1g}"


def _saved(network: Autoencoder, images: Tensor) -> str:
    other = copy.deepcopy(network)
    other.normalise_over([networks.pictures(other.shape, 16, images.dtype)])
    return networks.saved(other, lambda made, x: [cast(Autoencoder, made).normalised_code(x)], images)


@torch.no_grad()
def _inverse(network: Autoencoder, images: Tensor) -> str:
    other = copy.deepcopy(network)
    other.code_mean.fill_(0.5)
    other.code_deviation.fill_(2.0)
    *_, back = _there_and_back(other, images)
    found = other.image(other.normalised_code(images))
    error = float((found - back).abs().max() / (1e-6 + back.abs().max()))
    assert error < 1e-3, f"image(normalised_code(x)) is {error:.2g} off decode(mean)"
    return f"to {error:.1g}"
