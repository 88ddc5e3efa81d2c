"""Decoding by tiles: the whole decoding where one tile reaches, a blend where several do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trilemma
from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.tiling import tiled
from trilemma.models.construction import Constructing


def decoder(reach, f=2):
    """A convolution that looks `reach` places around, and shuffles 2×2 pixels."""
    with Constructing(0):
        layer = nn.Conv2d(3, 2 * f * f, 2 * reach + 1, padding=reach)
    return torch.no_grad()(lambda code: nn.functional.pixel_shuffle(layer(code), f))


@pytest.mark.parametrize("sides", [(40, 26), (13, 9), (8, 8), (5, 30)])
def test_what_one_tile_covers_is_the_whole_decoding_and_the_rest_lies_between_tiles(sides):
    reach, tile, overlap = 2, 9, 3
    decode = decoder(reach)
    code = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(1))
    calls = []

    def counted(part):
        calls.append(tuple(part.shape))
        return decode(part)

    whole, found = decode(code), tiled(counted, code, tile, overlap)
    assert found.shape == whole.shape
    assert {call[0] for call in calls} == {1}
    assert max(max(call[2:]) for call in calls) <= tile
    covered = torch.zeros(sides)
    for top in starts(sides[0], tile, overlap):
        for left in starts(sides[1], tile, overlap):
            covered[top : top + tile, left : left + tile] += 1
    assert covered.min() >= 1
    alone = (covered == 1).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(found[:, :, alone], whole[:, :, alone], atol=1e-5, rtol=1e-5)
    if min(sides) > tile:
        assert not torch.allclose(found, whole, atol=1e-3)


def starts(side, tile, overlap):
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def test_a_decoder_that_looks_at_one_place_is_the_same_in_tiles():
    decode = decoder(0)
    code = torch.randn(1, 3, 30, 17, generator=torch.Generator().manual_seed(1))
    for overlap in (0, 1, 4):
        torch.testing.assert_close(tiled(decode, code, 7, overlap), decode(code), atol=1e-5, rtol=1e-5)
    assert tiled(decode, code[:0], 7, 2).shape == (0, 2, 60, 34)


def test_the_borders_of_tiles_are_blended_linearly():
    """Two tiles, each of one value: the overlap goes from one to the other in equal steps."""
    values = iter((0.0, 1.0))
    found = tiled(lambda part: part.new_full((1, 1, 4, 16), next(values)), torch.zeros(1, 1, 2, 12), 8, 4)
    assert torch.equal(found[0, 0, 0, :8], torch.zeros(8))
    assert torch.equal(found[0, 0, 0, 16:], torch.ones(8))
    torch.testing.assert_close(found[0, 0, 0, 8:16], (torch.arange(8) + 0.5) / 8)


@pytest.fixture(scope="module")
def coder():
    with Constructing(3):
        made, _ = lookup.build("autoencoder", "autoencoder-kl:widths=[8,12],channels=2", shape=(1, 16, 16))
    return made.eval().requires_grad_(False)


def test_a_large_image_comes_back_by_tiles_as_it_does_whole(coder):
    x = torch.rand(2, 1, 160, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    whole = trilemma.autoencode(coder, x)
    torch.testing.assert_close(whole, coder.decode(coder.encode(x.float())[0]).double(), atol=1e-5, rtol=1e-5)
    tile = 4 * coder.reach
    assert tile < 40
    assert coder.tile == 0
    found = trilemma.autoencode(coder, x, tile=tile)
    assert found.dtype == x.dtype
    assert coder.tile == 0
    # Places of the first tile that the second, from place 40 − tile on, does not cover.
    sure = 4 * (40 - tile)
    torch.testing.assert_close(found[:, :, :sure], whole[:, :, :sure], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, whole, atol=1e-6)


def test_what_has_no_codes_is_refused(coder, one_line):
    x = torch.zeros(1, 1, 16, 16)
    for model, images, words in (
        ("mnist", x, "has no codes"),
        (coder, x[0], "expected floating-point images"),
        (coder, x.expand(-1, 2, -1, -1), "expected floating-point images"),
        (coder, x[..., :15], "do not divide"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            trilemma.autoencode(model, images)
        one_line(caught.value)
    with pytest.raises(UsageError, match="no side of a tile"):
        trilemma.autoencode(coder, x, tile=-1)
