"""Images in another size, by a rule that has a name."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

# Options of `torch.nn.functional.interpolate` by the name of the rule.
RULES: dict[str, dict[str, object]] = {
    "nearest": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear-antialias": {"mode": "bilinear", "align_corners": False, "antialias": True},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "bicubic-antialias": {"mode": "bicubic", "align_corners": False, "antialias": True},
    "area": {"mode": "area"},
}


def resized(images: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """Returns images [B, C, H', W'] of a size (H', W'); images of this size are returned as they are.

    Args:
        images: [B, C, H, W], floating-point.
        size: (H', W').
        rule: a name in `RULES`. The bicubic ones overshoot at edges; the result stays in the images' own range.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    result = interpolate(images, size=size, **RULES[rule])  # type: ignore[arg-type]
    if "bicubic" not in rule:
        return result
    lowest, highest = (bound(dim=(1, 2, 3), keepdim=True) for bound in (images.amin, images.amax))
    return result.clamp(lowest, highest)


def covering(images: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """Returns images [B, C, H', W'] whose centre, of the aspect ratio of (H', W'), is resized; the rest is cut off."""
    height, width = images.shape[-2:]
    scale = min(height / size[0], width / size[1])
    kept = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return resized(images[..., top : top + kept[0], left : left + kept[1]], size, rule)
