"""Noise of a camera's sensor, as it looks after the camera's own processing."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from trilemma_plugins.bsr.draws import Draws


class Sensor(NamedTuple):
    """A sensor: the gains of red and blue against green, and the variances shot·x + read of its noise."""

    red: float
    blue: float
    shot: float
    read: float


def drawn_sensor(draws: Draws) -> Sensor:
    """Draws a sensor with the gains and noise of mobile phones in 1811.11127.

    red ~ U(1.9, 2.4), blue ~ U(1.5, 1.9), ln shot ~ U(ln 10⁻⁴, ln 0.012), ln read ~ N(2.18 ln shot + 1.2, 0.26²).
    """
    red, blue = draws.uniform(1.9, 2.4), draws.uniform(1.5, 1.9)
    shot = draws.uniform(math.log(1e-4), math.log(0.012))
    read = 2.18 * shot + 1.2 + 0.26 * float(draws.normals(1))
    return Sensor(red, blue, math.exp(shot), math.exp(read))


def photographed(image: Tensor, sensor: Sensor, draws: Draws) -> Tensor:
    """Returns a picture [C, H, W] in [0, 1] as a camera would have taken it.

    1. sRGB to linear light; 2. the white balance undone: red and blue divided by their gains; 3. one colour a pixel, in
    Bayer's pattern RGGB; 4. noise N(0, shot·x + read), clipped to [0, 1]; 5. the colours interpolated linearly;
    6. the gains again; 7. linear light to sRGB. A grey picture has steps 1, 4 and 7. There is no tone curve, and the
    sensor's colours are those of the screen.

    Args:
        image: one channel, or three.
        sensor: its gains and noise.
        draws: of the noise.

    References:
        Brooks et al., Unprocessing Images for Learned Raw Denoising, arXiv:1811.11127.
    """
    light = linear(image)
    if len(image) != 3:
        return screen(_noisy(light, sensor, draws))
    gains = torch.tensor([sensor.red, 1.0, sensor.blue], dtype=torch.float64)[:, None, None]
    mask = bayer(image.shape[1], image.shape[2])
    raw = _noisy((light / gains * mask).sum(0, keepdim=True), sensor, draws)
    return screen((demosaiced(raw, mask) * gains).clamp(0, 1))


def linear(image: Tensor) -> Tensor:
    """Returns the linear light of sRGB levels in [0, 1] (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def screen(light: Tensor) -> Tensor:
    """Returns the sRGB levels of linear light in [0, 1]."""
    powered = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, powered)


def bayer(height: int, width: int) -> Tensor:
    """Returns the mask [3, H, W] of the pattern RGGB: 1 where a pixel sees the colour."""
    mask = torch.zeros(3, height, width, dtype=torch.float64)
    mask[0, 0::2, 0::2] = 1
    mask[1, 0::2, 1::2] = 1
    mask[1, 1::2, 0::2] = 1
    mask[2, 1::2, 1::2] = 1
    return mask


def demosaiced(raw: Tensor, mask: Tensor) -> Tensor:
    """Returns all colours [3, H, W] of a raw picture [1, H, W]: the mean of the next pixels that see a colour.

    The weights are those of bilinear interpolation, divided by their sum over the pixels inside the picture.
    """

    def summed(values: Tensor) -> Tensor:
        whole = pad(values, (1, 1, 1, 1))
        rows = whole[:, :-2] + 2 * whole[:, 1:-1] + whole[:, 2:]
        return rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]

    return torch.where(mask > 0, raw * mask, summed(raw * mask) / summed(mask).clamp_min(1))


def _noisy(light: Tensor, sensor: Sensor, draws: Draws) -> Tensor:
    deviation = (sensor.shot * light + sensor.read).sqrt()
    return (light + deviation * draws.normals(*light.shape)).clamp(0, 1)
