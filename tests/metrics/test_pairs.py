"""Distances of pairs of images."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.features import Features
from trilemma.testing import check_metric
from trilemma_plugins.metrics.features import ImageFeatures
from trilemma_plugins.metrics.pairs import Perceptual


@pytest.mark.parametrize("name", ["psnr", "ssim", "perceptual"])
def test_it_is_a_metric_of_pairs(name):
    check_metric(name)


class TwoLayers(Features):
    """Two convolutions of images of 8×8."""

    def __init__(self) -> None:
        super().__init__((3, 8, 8))
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            nn.init.normal_(weight, 0, 0.3, generator=generator)

    def forward(self, images):
        return self.second(self.first(images).relu()).mean((2, 3)), None


def pictures(seed, side=8):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(network, x, y):
    with torch.no_grad():
        first = [normalize(network.first(entry), dim=1) for entry in (x, y)]
        second = [normalize(network.second(network.first(entry).relu()), dim=1) for entry in (x, y)]
    return sum((a - b).square().sum(1).mean((1, 2)) for a, b in (first, second)).double() / 2


def test_the_distance_is_the_mean_over_layers_and_places():
    network, x, y = TwoLayers(), pictures(1), pictures(2)
    found = Perceptual().compare(x, y, network)
    torch.testing.assert_close(found, by_hand(network, x, y))
    assert not network.first._forward_hooks


def test_a_larger_image_is_looked_at_in_squares_of_the_trained_size():
    network, x, y = TwoLayers(), pictures(1, 12), pictures(2, 12)
    parts = [
        by_hand(
            network, x[..., row : row + 8, column : column + 8], y[..., row : row + 8, column : column + 8]
        )
        for row in (0, 4)
        for column in (0, 4)
    ]
    torch.testing.assert_close(Perceptual().compare(x, y, network), sum(parts) / 4)


def test_detail_that_a_smaller_image_does_not_show_counts():
    """The shipped network resizes to 32×32, where a checkerboard of pixels is grey."""
    network = ImageFeatures()
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    flat = torch.zeros(1, 3, 64, 64)
    fine = flat + 0.4 * (2.0 * board - 1)
    assert torch.dist(network.observe(flat).features, network.observe(fine).features) < 0.05
    assert float(Perceptual().compare(fine, flat, network)) > 0.3


def test_a_network_without_convolutions_is_refused(one_line):
    class Pixels(Features):
        def forward(self, images):
            return images.flatten(1), None

    with pytest.raises(UsageError, match="has no convolutions") as caught:
        Perceptual().compare(pictures(1), pictures(2), Pixels((3, 8, 8)))
    one_line(caught.value)
    with pytest.raises(UsageError, match="trained feature network"):
        Perceptual().compare(pictures(1), pictures(2), None)
    assert lookup.build("metric", "perceptual")[0].takes_features
