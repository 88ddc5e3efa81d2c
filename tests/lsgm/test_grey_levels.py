"""The laws of grey levels are probabilities, and the decoded image is their mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.testing import check_autoencoder
from trilemma_plugins.lsgm.grey_levels import GreyLevels
from trilemma_plugins.lsgm.logistics import expectation, log_probability

LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)


def laws(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtures of three, among them laws far outside of the pixels and ones far narrower than a level."""
    draws = torch.Generator().manual_seed(0)
    logits, means = torch.randn(2, 1, 3, 1, 1, count, generator=draws, dtype=torch.float64)
    log_scales = torch.linspace(-9, 1, 3 * count, dtype=torch.float64).view(1, 3, 1, 1, count)
    return logits, 2 * means, log_scales


def test_the_levels_have_the_probability_one() -> None:
    total = torch.zeros(1, 1, 1, 6, dtype=torch.float64)
    for level in LEVELS:
        total += log_probability(level.expand(1, 1, 1, 6), *laws()).exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_each_level_is_the_difference_of_its_ends() -> None:
    logits, means, log_scales = laws()
    scale = log_scales.exp()
    for index in (1, 77, 200, 254):
        x = LEVELS[index]
        ends = [torch.sigmoid((x + side / 255 - means) / scale) for side in (1, -1)]
        expected = (logits.softmax(1) * (ends[0] - ends[1])).sum(1).clamp_min(1e-300).log()
        found = log_probability(x.expand(1, 1, 1, 6), logits, means, log_scales)
        seen = expected > -25
        torch.testing.assert_close(found[seen], expected[seen], rtol=1e-8, atol=1e-8)


def test_narrow_laws_are_finite_in_float32() -> None:
    logits, means, log_scales = (entry.float() for entry in laws())
    log_scales = log_scales - 20
    log_scales.requires_grad_()
    found = log_probability(LEVELS[100].float().expand(1, 1, 1, 6), logits, means, log_scales)
    found.sum().backward()
    assert found.isfinite().all()
    assert log_scales.grad is not None
    assert log_scales.grad.isfinite().all()


def test_the_decoded_image_is_the_mean_of_its_law() -> None:
    found = expectation(*laws())
    mean = torch.zeros_like(found)
    for level in LEVELS:
        mean += level * log_probability(level.expand_as(found), *laws()).exp()
    # Within a level the law is continuous in the one and gathered in the other.
    torch.testing.assert_close(found, mean, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
def test_conformance(shape: tuple[int, int, int]) -> None:
    network = GreyLevels(shape, network="autoencoder-kl", channels=2, factor=4, widths=[8], mixtures=2)
    assert not [record for record in check_autoencoder(network) if record.failed]


def test_the_likelihood_is_that_of_its_pixels() -> None:
    network = GreyLevels((3, 8, 8), channels=2, width=8).eval().requires_grad_(False)
    x = LEVELS[torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))].float()
    code = network.encode(x)[0]
    before = network.log_likelihood(x, code)
    other = x.clone()
    other[0, 1, 2, 3] = LEVELS[255] if x[0, 1, 2, 3] < 0 else LEVELS[0]
    after = network.log_likelihood(other, code)
    assert before[1:].tolist() == after[1:].tolist()
    assert before[0] != after[0]


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="mixtures"):
        GreyLevels((1, 8, 8), mixtures=0)
