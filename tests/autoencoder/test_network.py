"""The convolutional autoencoder: its sizes, and the neighbourhood that a decoded place depends on."""

from __future__ import annotations

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.models.construction import Constructing
from trilemma.testing import check_autoencoder
from trilemma_plugins.autoencoder.network import AutoencoderKL


def coder(shape=(1, 16, 16), **options):
    with Constructing(3):
        return AutoencoderKL(shape, **{"widths": (8, 12), **options}).eval()


@pytest.mark.parametrize(
    ("factor", "widths"), [(2, (8,)), (2, (8, 8)), (4, (8,)), (4, (8, 8, 8)), (8, (8, 8)), (8, (8, 8, 8, 8))]
)
def test_sides_are_divided_by_the_factor_whatever_the_levels(factor, widths):
    made = coder((3, 16, 32), factor=factor, widths=widths, channels=5)
    x = torch.zeros(2, 3, 16, 32)
    mean, log_variance = made.encode(x)
    assert mean.shape == log_variance.shape == (2, 5, 16 // factor, 32 // factor)
    assert made.code_shape((3, 64, 48)) == (5, 64 // factor, 48 // factor)
    assert made.decode(mean).shape == x.shape


def test_it_passes_the_checks_of_every_autoencoder():
    assert not [record for record in check_autoencoder(coder()) if record.failed]


@pytest.mark.parametrize("options", [{}, {"factor": 8, "widths": (8, 8, 8), "blocks": 2}, {"factor": 2}])
def test_a_decoded_place_depends_on_the_codes_within_reach_and_on_some_at_its_end(options):
    made = coder((1, 128, 8), **options)
    reach = made.reach
    height = 2 * reach + 8
    code = torch.randn(1, 4, height, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    image = made.decode(code)
    middle = image[:, :, image.shape[2] // 2]
    (slope,) = torch.autograd.grad(middle.square().sum(), code)
    place = (image.shape[2] // 2) // made.factor
    felt = slope.abs().sum((0, 1, 3)).nonzero().flatten()
    assert place - int(felt.min()) <= reach
    assert int(felt.max()) - place <= reach
    assert max(place - int(felt.min()), int(felt.max()) - place) >= reach - 1


def test_statistics_are_float32_under_autocast_and_bounded():
    made, x = coder(), torch.rand(2, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = made.encode(1e6 * x)
    assert mean.dtype == log_variance.dtype == torch.float32
    assert log_variance.min() >= -30
    assert log_variance.max() <= 20


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"factor": 3}, "no downsampling"),
        ({"factor": 2, "widths": (8, 8, 8)}, "3 levels; give 1 to 2"),
        ({"widths": ()}, "0 levels"),
        ({"blocks": 0}, "no number of blocks"),
        ({"shape": (1, 18, 16)}, "do not divide by factor=4"),
    ],
)
def test_what_has_no_codes_is_refused(options, reason, one_line):
    with pytest.raises(UsageError, match=reason) as caught:
        coder(**options)
    one_line(caught.value)
