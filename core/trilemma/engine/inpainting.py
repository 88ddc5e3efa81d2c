"""The region of a picture that is given: it follows its own noising while the rest is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.engine.images import chosen
from trilemma.errors import UsageError
from trilemma.interfaces.data_view import DataView


@dataclass(frozen=True)
class Known:
    """Images and the mask of the region that is kept.

    Attributes:
        images: [N, C, H, W]; sample i takes entry i modulo N.
        mask: [M, C, H, W] of 0 and 1, 1 where the image is kept; sample i takes entry i modulo M.
    """

    images: Tensor
    mask: Tensor

    def of(self, indices: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images and masks [B, C, H, W] of samples `indices` [B], in the dtype and on the device of `like`."""
        return chosen(self.images, indices, like), chosen(self.mask, indices, like)

    def pasted(self, images: Tensor, indices: Tensor) -> Tensor:
        """Returns images [B, C, H, W] of samples `indices` [B] with the region in place of their own pixels."""
        given, mask = self.of(indices, images)
        return torch.where(mask.bool(), given, images)

    def seen_by(self, view: DataView, shape: Sequence[int]) -> Known:
        """Returns the region of the data, of a shape, that the images stand for.

        Raises:
            UsageError: where no number of the data stands for kept pixels alone.
        """
        found = Known(view.data(self.images), view.mask(self.mask, shape))
        if not view.is_direct and not bool(found.mask.flatten(1).any(1).all()):
            height, width = self.mask.shape[2] // shape[1], self.mask.shape[3] // shape[2]
            raise UsageError(
                f"the mask keeps no whole patch of {height}×{width} pixels, which one place of the codes stands for; "
                "keep more, or start from images by start="
            )
        return found

    def imposed(self, state: Tensor, indices: Tensor, noise: Tensor, level: tuple[float, float]) -> Tensor:
        """Returns m (α x + σ ξ) + (1 − m) z as a new tensor."""
        image, mask = self.of(indices, state)
        alpha, sigma = level
        return mask * (alpha * image + sigma * noise) + (1 - mask) * state


def known_region(known: Tensor | None, mask: Tensor | None, shape: Sequence[int]) -> Known | None:
    """Returns the region that `known=` and `mask=` describe; None for neither.

    Raises:
        UsageError: for one without the other, another shape, or a mask of anything but 0 and 1.
    """
    if known is None and mask is None:
        return None
    if known is None or mask is None:
        missing = "known" if known is None else "mask"
        raise UsageError(f"{missing}= is missing; give known=, the images, and mask=, 1 where they are kept")
    if (
        not isinstance(mask, Tensor)
        or mask.dim() != 4
        or not len(mask)
        or mask.shape[2:] != torch.Size(shape[1:])
    ):
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UsageError(
            f"mask is {found}; expected {('n', 1, *shape[1:])} or {('n', *shape)}, 1 where known= is kept"
        )
    if mask.shape[1] not in (1, shape[0]):
        raise UsageError(f"mask has {mask.shape[1]} channels; expected 1 or {shape[0]}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise UsageError("the mask holds values between 0 and 1; give 1 where known= is kept and 0 elsewhere")
    return Known(known, mask.expand(-1, shape[0], -1, -1))


class KnownRegion:
    """Puts z ← m (α x + σ ξ) + (1 − m) z into a runner's states, in place and from buffers made before.

    ξ is one for the whole run, so that the region moves along α_t x + σ_t ξ: its marginal is that of the process at
    every time, and a method with several stages or a history sees it move smoothly, as the probability flow would.

    Args:
        states: of the runner, [G·B, ...] each.
        branches: G.
        alpha_sigma: α and σ of the state after each row.
    """

    def __init__(
        self, states: Sequence[Tensor], branches: int, alpha_sigma: Sequence[tuple[float, float]]
    ) -> None:
        self._views = [state.unflatten(0, (branches, -1)) for state in states]
        self._alpha_sigma = alpha_sigma
        self._free, self._data, self._noise = (torch.empty_like(self._views[0][0]) for _ in range(3))

    def load(self, image: Tensor, mask: Tensor, noise: Tensor) -> None:
        """Takes the images, masks and noise [B, ...] of a batch."""
        self._free.copy_(mask).neg_().add_(1)
        torch.mul(mask, image, out=self._data)
        torch.mul(mask, noise, out=self._noise)

    def impose(self, slot: int, row: int) -> None:
        """Puts the region into the state that a row left in a slot."""
        alpha, sigma = self._alpha_sigma[row]
        state = self._views[slot].mul_(self._free).add_(self._data, alpha=alpha)
        if sigma:
            state.add_(self._noise, alpha=sigma)
