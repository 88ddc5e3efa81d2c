"""Images that a network sees beside its state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import UsageError, message_of, shown
from trilemma.interfaces.condition.condition import Condition
from trilemma.interfaces.condition.prepared import Prepared
from trilemma.numerics.resizing import RULES, covering
from trilemma.registry.spec import parse_value

# Floating-point levels beyond this are taken for bytes that were not scaled to [−1, 1].
_LARGEST = 20.0


@dataclass(frozen=True)
class ImageCondition(Condition):
    """An image. The network receives it as float32 [B, C, H, W] in [−1, 1] under its name.

    Where there is a null it also receives `<name>_given`, bool [B]: False is the null.

    A value is the path of a picture, a Pillow image, a tensor or array [C, h, w] of floats in [−1, 1] or of bytes u,
    which become 2u/255 − 1, or several of them: a sequence, or a tensor [N, C, h, w]. One of another size is cut at its
    centre to the aspect ratio of (H, W) and resized by the rule. Noise on an image may leave [−1, 1].

    Attributes:
        name: under which an image is given.
        shape: (C, H, W) as the network receives it.
        null: whether there is a null.
        resize: rule for images of another size: nearest, bilinear, bilinear-antialias, bicubic, bicubic-antialias,
            area, or exact, which refuses them.

    Raises:
        UsageError: for an impossible shape or an unknown rule.
    """

    shape: tuple[int, ...]
    null: bool = False
    resize: str = "bilinear-antialias"

    kind = "image"

    def __post_init__(self) -> None:
        if self.resize not in (*RULES, "exact"):
            raise UsageError(
                f"condition {self.name!r}: unknown resize={self.resize!r}; choose from {', '.join(RULES)}, exact"
            )
        if isinstance(self.shape, str) or len(self.shape) != 3:
            raise UsageError(
                f"condition {self.name!r}: shape={shown(self.shape)} is no shape; give [C, H, W], such as [1, 14, 14]"
            )
        sizes = tuple(checked_integer(size, f"condition {self.name!r}: shape", 1) for size in self.shape)
        object.__setattr__(self, "shape", sizes)

    @property
    def has_null(self) -> bool:
        return self.null

    @property
    def keywords(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}_given") if self.null else (self.name,)

    def entries(self, values: Sequence[Any]) -> Prepared:
        images = [
            torch.full(self.shape, float(self.fill)) if entry is None else self._image(entry)
            for entry in values
        ]
        tensors = {self.name: torch.stack(images)}
        if self.null:
            tensors[f"{self.name}_given"] = torch.tensor([entry is not None for entry in values])
        return Prepared(tensors)

    def drawn(self, count: int, generator: torch.Generator) -> Prepared:
        return self.entries([2 * torch.rand(self.shape, generator=generator) - 1 for _ in range(count)])

    def expected(self) -> str:
        return f"give a picture, or a tensor {self.shape} in [−1, 1]"

    def listed(self, value: Any) -> list[Any]:
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return list(value) if len(value.shape) == 4 else [value]
        return list(value) if isinstance(value, list | tuple) else [value]

    def parse(self, text: str) -> Any:
        """Returns the path that a text is, or a list of paths, [a.png,b.png]."""
        return parse_value(text) if text[0] == "[" and text[-1] == "]" else text

    def recorded(self, value: Any, prepared: Prepared | None) -> Any:
        """Returns the digest of the images as the network receives them; None for the null."""
        return None if prepared is None else prepared.identity

    def _image(self, value: Any) -> Tensor:
        """An image [C, H, W]."""
        picture = isinstance(value, str | Path) or type(value).__module__.partition(".")[0] == "PIL"
        found = self._decoded(value) if picture else self._levels(value)
        if self.resize == "exact" and tuple(found.shape) != self.shape:
            raise UsageError(f"{self.name}= is an image {tuple(found.shape)}; {self.expected()}")
        return self._fitting(found[None])[0]

    def told(self, images: Tensor) -> Prepared:
        """Returns images [N, C, h, w] in [−1, 1] as one entry each, resized on their device by the rule."""
        tensors = {self.name: self._fitting(images.float())}
        if self.null:
            tensors[f"{self.name}_given"] = torch.ones(len(images), dtype=torch.bool, device=images.device)
        return Prepared(tensors)

    def _fitting(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] of images [N, C, h, w]."""
        return covering(images, (self.shape[1], self.shape[2]), self.resize)

    def _decoded(self, picture: Any) -> Tensor:
        """The levels [C, h, w] of a picture, read as pictures of data sets are."""
        from trilemma.files.picture import FILE_LIMIT, decode_picture
        from trilemma.files.regular import read_regular

        name = picture if isinstance(picture, str | Path) else "the picture"
        try:
            blob = read_regular(picture, FILE_LIMIT) if isinstance(picture, str | Path) else _png(picture)
            pixels = decode_picture(blob, self.shape[0])
        except Exception as error:
            reason = getattr(error, "strerror", None) or message_of(error)
            raise UsageError(f"{self.name}=: cannot read {name}: {reason}; {self.expected()}") from error
        return pixels.float().div_(127.5).sub_(1)

    def _levels(self, value: Any) -> Tensor:
        """The levels [C, h, w] of a tensor or array."""
        try:
            levels = torch.as_tensor(value).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"{self.name}={shown(value)} is no image; {self.expected()}") from error
        if levels.dim() != 3 or levels.shape[0] != self.shape[0] or not levels.numel():
            raise UsageError(f"{self.name}= is a tensor of shape {tuple(levels.shape)}; {self.expected()}")
        if levels.dtype == torch.uint8:
            return levels.float().div_(127.5).sub_(1)
        if not levels.is_floating_point() or not bool((levels.abs() <= _LARGEST).all()):
            raise UsageError(
                f"{self.name}= holds {str(levels.dtype).removeprefix('torch.')} levels that are no image; "
                f"{self.expected()}, or bytes as uint8"
            )
        return levels.float()


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    plain = (
        picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else picture.convert("RGB")
    )
    plain.save(file, "PNG")
    return file.getvalue()
