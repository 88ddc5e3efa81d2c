"""An orthogonal autoencoder: whatever is done in its codes is what is done in the pixels."""

from __future__ import annotations

import pytest
import torch

import trilemma
from support.haar import Haar, OfCodes, Rotated
from trilemma import KeyedNoise
from trilemma.interfaces.data_view import Latent
from trilemma.testing import GaussianMixtureDenoiser

SHAPE = (1, 4, 6)
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def pixels():
    draw = torch.Generator().manual_seed(0)
    means = [torch.rand(SHAPE, generator=draw) * 2 - 1 for _ in range(3)]
    process = trilemma.process("vp-continuous")
    return GaussianMixtureDenoiser(process, means, (0.02, 0.05, 0.03), None, "v", SHAPE).eval()


@pytest.fixture(scope="module")
def codes(pixels):
    autoencoder = Haar(SHAPE)
    made = OfCodes(pixels, autoencoder).eval()
    made.view = Latent(autoencoder, SHAPE)
    return made


@pytest.fixture
def both(pixels, codes):
    """Draws of the pixels and of the images of the codes, under the same noise."""
    noise = KeyedNoise(5)

    def draw(n, **options):
        options = {"steps": 12, "cond": {"class": [0, 1, 2]}, **options}
        first = trilemma.sample(pixels, n, noise=noise, **options)
        second = trilemma.sample(codes, n, noise=Rotated(noise, codes.view.autoencoder), **options)
        assert second.samples.shape == (n, *SHAPE)
        return first.samples, second.samples

    return draw


@pytest.mark.parametrize("sampler", ["ddim", "ddim:eta=1", "dpmpp-2m", "heun", "dpmpp-2m-sde"])
@pytest.mark.parametrize("guidance", [None, "cfg:scale=3"])
def test_samples_in_codes_are_those_in_pixels(both, sampler, guidance):
    first, second = both(6, sampler=sampler, guidance=guidance)
    torch.testing.assert_close(first, second, **CLOSE)
    assert first.std() > 0.1


def images():
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_images_are_started_from_alike(both):
    first, second = both(3, start=images(), strength=0.5)
    torch.testing.assert_close(first, second, **CLOSE)


def test_images_are_inverted_alike(pixels, codes):
    options = {"sampler": "ddim", "steps": 12, "cond": {"class": 1}}
    first, second = (trilemma.invert(model, images(), **options).samples for model in (pixels, codes))
    assert second.shape == (3, 4, 2, 3)
    # These images are far from the data: their states are large.
    torch.testing.assert_close(codes.view.autoencoder.encode(first)[0], second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"sampler": "ddim:eta=1", "resample": 3, "jump": 2}])
def test_a_region_of_whole_patches_is_kept_alike(both, options):
    mask = torch.zeros(1, 1, 4, 6)
    mask[:, :, :, :2] = 1
    mask[:, :, 2:, 2:4] = 1
    first, second = both(3, known=images(), mask=mask, **options)
    torch.testing.assert_close(first, second, **CLOSE)
    assert torch.equal(second[:, :, :, :2], images()[:, :, :, :2])
    assert not torch.allclose(second[:, :, :2, 2:], images()[:, :, :2, 2:], atol=1e-2)


def test_a_patch_that_is_kept_in_part_is_drawn_and_its_kept_pixels_are_put_back(both, codes):
    """The second column of patches is kept in half: in the codes it is drawn as if nothing of it were known."""
    whole, more = torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 4, 6)
    whole[:, :, :, :2] = 1
    more[:, :, :, :3] = 1
    _, first = both(3, known=images(), mask=whole)
    _, second = both(3, known=images(), mask=more)
    assert torch.equal(second[..., :3], images()[..., :3])
    assert torch.equal(second[..., 3:], first[..., 3:])
    assert not torch.equal(first[..., 2], second[..., 2])
    assert not torch.allclose(second[..., 3:], images()[..., 3:], atol=1e-2)
