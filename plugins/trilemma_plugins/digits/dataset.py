"""scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from trilemma.errors import UsageError
from trilemma.interfaces.dataset import InMemoryDataset

_TEST_EVERY = 5


class Digits(InMemoryDataset):
    """Handwritten digits, 8×8, in 17 grey levels scaled to u = 255 level/16 (Alpaydin, Kaynak, 1998).

    scikit-learn brings 1,797 of them without a split of its own: every fifth of a class is for testing.

    Args:
        split: "train" (1,442 images) or "test" (355).

    Raises:
        UsageError: for an unknown split.
    """

    def __init__(self, split: str = "train") -> None:
        if split not in ("train", "test"):
            raise UsageError(f"digits: unknown split={split!r}; expected train or test")
        bunch = load_digits()
        levels, labels = torch.from_numpy(bunch.images), torch.from_numpy(bunch.target).long()
        same_class = labels[:, None] == labels
        place_in_class = same_class.tril(-1).sum(1)
        is_test = place_in_class % _TEST_EVERY == _TEST_EVERY - 1
        chosen = is_test if split == "test" else ~is_test
        images = (levels[chosen] * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
        super().__init__(images, labels[chosen], tuple("0123456789"))
        self.split = split
