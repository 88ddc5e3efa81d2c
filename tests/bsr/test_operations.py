"""Every operation of the degradation against a formula of its own, by SciPy or by hand."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from trilemma_plugins.bsr import camera, noises, operations
from trilemma_plugins.bsr.draws import Draws
from trilemma_plugins.bsr.kernels import anisotropic, filtered, isotropic


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    """A smooth picture with noise, in [0.1, 0.9]."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ramp = torch.linspace(0, 1, shape[-1], dtype=torch.float64)
    return 0.1 + 0.4 * noise + 0.4 * ramp


class Fixed(Draws):
    """Draws of which the uniform ones are given."""

    def __init__(self, *uniforms: float, integers: tuple[int, ...] = ()) -> None:
        super().__init__(0, 0)
        self.uniforms, self.integers = list(uniforms), list(integers)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.uniforms.pop(0)

    def integer(self, low: int, high: int) -> int:
        return self.integers.pop(0) if self.integers else super().integer(low, high)


@pytest.mark.parametrize("size", [7, 15, 25])
def test_kernels_sum_to_one(size):
    draws = Draws(1, size)
    for _ in range(200):
        angle, first, second = draws.uniform(0, math.pi), draws.uniform(0, 8), draws.uniform(0, 8)
        for kernel in (anisotropic(size, angle, first, second), isotropic(size, draws.uniform(0, 3), 1.5)):
            assert kernel.shape == (size, size)
            assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
            assert bool((kernel >= 0).all())


def test_kernels_of_no_width_are_a_pixel():
    for kernel in (isotropic(7, 0.0), anisotropic(7, 0.3, 0.0, 0.0)):
        assert torch.equal(
            kernel,
            torch.zeros(7, 7, dtype=torch.float64).index_put_(
                (torch.tensor(3),) * 2, torch.tensor(1.0).double()
            ),
        )
    assert float(isotropic(25, 0.0, shift=0.5).sum()) == pytest.approx(1)


def test_an_anisotropic_kernel_is_a_normal_density():
    angle, first, second = 0.7, 3.0, 0.8
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    density = stats.multivariate_normal(cov=turn @ np.diag([first, second]) @ turn.T)
    y, x = np.mgrid[-7:8, -7:8]
    expected = density.pdf(np.stack([x, y], -1))
    np.testing.assert_allclose(anisotropic(15, angle, first, second), expected / expected.sum(), rtol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(24, 16), (5, 40)])
def test_filtering_is_scipys_correlation(height, width):
    image, kernel = picture(3, height, width), anisotropic(25, 0.4, 5.0, 1.0, shift=1.5)
    expected = ndimage.correlate(image.numpy(), kernel.numpy()[None], mode="mirror")
    np.testing.assert_allclose(filtered(image, kernel), expected, atol=1e-12)


def test_a_blur_is_its_kernel():
    """Size 2·4 + 3 = 11; anisotropic below a half."""
    image = picture(3, 20, 30)
    found = operations.blurred(image, 4, 1.0, Fixed(0.4, 0.25, 0.5, 0.75, integers=(4,)))
    kernel = anisotropic(11, math.pi / 4, 4.0, 6.0)
    np.testing.assert_allclose(
        found, ndimage.correlate(image.numpy(), kernel.numpy()[None], mode="mirror"), atol=1e-12
    )
    found = operations.blurred(image, 4, 0.25, Fixed(0.6, 0.5, integers=(11,)))
    expected = ndimage.gaussian_filter(image.numpy(), (0, 0.35, 0.35), mode="mirror", radius=(0, 12, 12))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_down_sampling_by_pixels_keeps_the_centre():
    """A ramp stays one, at the centre of the pixels that each stands for."""
    ramp = torch.arange(64, dtype=torch.float64).div(64).expand(1, 32, 64)
    found = operations.shrunk(ramp, 4, 0.75, Fixed(0.9, 0.5))
    assert found.shape == (1, 8, 16)
    expected = (4 * torch.arange(16) + 1.5) / 64
    torch.testing.assert_close(found[0, 4, 4:-4], expected[4:-4].double(), atol=1e-9, rtol=0)
    kernel = isotropic(25, 0.1 + 0.5 * 2.3, shift=1.5)
    whole = ndimage.correlate(ramp.numpy(), kernel.numpy()[None], mode="mirror")
    np.testing.assert_allclose(found, whole[:, ::4, ::4], atol=1e-12)


def test_resizing_by_area_is_the_mean_and_by_bilinear_the_line():
    image = picture(3, 12, 20)
    means = image.unflatten(2, (10, 2)).unflatten(1, (6, 2)).mean((2, 4))
    torch.testing.assert_close(operations.resized_to(image, (6, 10), "area"), means)
    # At half the size the line between two pixels' centres is met in its middle.
    torch.testing.assert_close(operations.resized_to(image, (6, 10), "bilinear"), means)
    y, x = np.meshgrid(
        (np.arange(9) + 0.5) * 12 / 9 - 0.5, (np.arange(15) + 0.5) * 20 / 15 - 0.5, indexing="ij"
    )
    for channel, found in zip(image, operations.resized_to(image, (9, 15), "bilinear"), strict=True):
        expected = ndimage.map_coordinates(channel.numpy(), [y, x], order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gaussian_noise_has_its_level_and_its_covariance():
    level, grey = 0.05, torch.full((3, 200, 200), 0.5, dtype=torch.float64)
    for uniform, expected in ((0.2, np.eye(3)), (0.6, np.ones((3, 3)))):
        found = (noises.gaussian(grey, level, Fixed(uniform)) - 0.5).flatten(1)
        np.testing.assert_allclose(np.cov(found) / level**2, expected, atol=0.02)
    root = noises.covariance_root(3, Fixed(0.3, 0.6, 0.9))
    np.testing.assert_allclose(np.linalg.eigvalsh(root @ root.T), [0.3, 0.6, 0.9], rtol=1e-9)
    found = (noises.gaussian(grey, level, Fixed(0.9, 0.3, 0.6, 0.9)) - 0.5).flatten(1)
    np.testing.assert_allclose(np.cov(found) / level**2, root @ root.T, atol=0.03)


def test_speckle_grows_with_the_light():
    light = torch.tensor([0.2, 0.8], dtype=torch.float64)[:, None, None].expand(2, 300, 300)
    found = noises.speckle(light, 0.05, Fixed(0.1)) - light
    np.testing.assert_allclose(found.std((1, 2)) / light[:, 0, 0], 0.05, rtol=0.02)


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_has_the_variance_of_counts(grey):
    light, photons = torch.full((3, 200, 200), 0.4, dtype=torch.float64), 1000.0
    found = noises.poisson(light, photons, grey, Draws(0, 0)) - light
    np.testing.assert_allclose(found.var((1, 2)), 0.4 / photons, rtol=0.05)
    np.testing.assert_allclose(found.mean((1, 2)), 0, atol=5 * (0.4 / photons / 40_000) ** 0.5)
    assert torch.equal(found[0], found[1]) == grey


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_is_pillows(channels):
    image = picture(channels, 24, 40)
    levels = np.rint(image.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(buffer, "JPEG", quality=60)
    expected = np.asarray(Image.open(buffer)).reshape(levels.shape).transpose(2, 0, 1)
    found = operations.compressed(image, 60)
    np.testing.assert_array_equal(operations.to_levels(found), expected)
    assert float((operations.compressed(image, 95) - image).abs().mean()) < float(
        (found - image).abs().mean()
    )


def test_sharpening_is_the_picture_and_its_difference_from_a_blur():
    image = picture(3, 20, 20)
    blurred = ndimage.gaussian_filter(image.numpy(), (0, 1.5, 1.5), mode="mirror", radius=(0, 5, 5))
    expected = np.clip(1.5 * image.numpy() - 0.5 * blurred, 0, 1)
    np.testing.assert_allclose(operations.sharpened(image, 1.5, 0.5), expected, atol=1e-12)


def test_linear_light_and_back():
    levels = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(camera.screen(camera.linear(levels)), levels, atol=1e-7, rtol=0)
    # By Pillow's table of no kind, but by the definition: sRGB 0.5 is 0.21404 in linear light.
    assert float(camera.linear(torch.tensor(0.5).double())) == pytest.approx(0.2140411, abs=1e-6)


def test_a_sensor_without_noise_loses_only_what_lies_between_its_pixels():
    """Each colour is interpolated linearly between the pixels that see it, which SciPy does, too."""
    still = camera.Sensor(2.0, 1.6, 0.0, 0.0)
    flat = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)[:, None, None].expand(3, 9, 12)
    torch.testing.assert_close(camera.photographed(flat, still, Draws(0, 0)), flat, atol=1e-7, rtol=0)
    image = picture(3, 16, 16)
    mask = camera.bayer(16, 16)
    raw = (image * mask).sum(0, keepdim=True)
    found = camera.demosaiced(raw, mask)
    assert torch.equal(mask.sum(0), torch.ones(16, 16).double())
    assert mask.sum((1, 2)).tolist() == [64, 128, 64]
    cross, box = (
        np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4,
        np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4,
    )
    for channel, weights in ((0, box), (2, box)):
        expected = ndimage.correlate((image * mask)[channel].numpy(), weights, mode="constant")
        np.testing.assert_allclose(found[channel, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-12)
    expected = ndimage.correlate((image * mask)[1].numpy(), cross, mode="constant")
    np.testing.assert_allclose(found[1, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-12)


def test_a_sensors_noise_has_the_variance_of_shot_and_read():
    sensor = camera.Sensor(1.0, 1.0, 0.002, 0.0005)
    grey = torch.full((1, 300, 300), 0.6, dtype=torch.float64)
    light = camera.linear(camera.photographed(grey, sensor, Draws(3, 0)))
    expected = 0.002 * float(camera.linear(grey[0, 0, 0])) + 0.0005
    assert float(light.var()) == pytest.approx(expected, rel=0.05)


def test_sensors_are_in_their_ranges():
    found = [camera.drawn_sensor(Draws(0, key)) for key in range(300)]
    assert all(1.9 <= entry.red <= 2.4 and 1.5 <= entry.blue <= 1.9 for entry in found)
    assert all(1e-4 <= entry.shot <= 0.012 and entry.read > 0 for entry in found)
