"""MNIST with captions that say the digit, how bold it is and how it leans."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.column import ClassColumn, ScalarColumn, TextColumn
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma_plugins.mnist.dataset import MNIST
from trilemma_plugins.mnist.phrases import SEEN, UNSEEN, caption
from trilemma_plugins.mnist.strokes import BOLDNESS, SLANT, boldness, measures, slant

_SEED = 7


class CaptionedMNIST(InMemoryDataset):
    """MNIST with captions, such as "a bold seven, leaning left", of attributes that are measured from the image.

    Boldness is thin, medium or bold by the thickness of the strokes, slant is left, upright or right by the moments of
    the ink; the bounds are the terciles of the training images (`strokes`). The phrasing of image i is drawn once, from
    a fixed seed. The training split misses one of the nine combinations of boldness and slant for each digit, and the
    phrasings of the test split; so no caption of the test split is in the training split.

    Columns: `text`, the caption; `boldness` and `slant`, classes; `thickness` in pixels and `angle` in degrees.

    Args:
        split: "train", 54,068 of the 60,000 training images, or "test", all 10,000 test images.
        root: folder of the four IDX files of MNIST, as for `mnist`.

    Attributes:
        unseen: whether the combination of an image is missing in the training split, bool [N].

    Raises:
        UsageError: for an unknown split.
        DataError: for files that are missing, damaged, or do not belong together.
    """

    def __init__(self, split: str = "train", root: str | None = None) -> None:
        digits = MNIST(split, root)
        thick, lean = measures(digits.images)
        bold, tilt = boldness(thick), slant(lean)
        phrasings = SEEN if split == "train" else UNSEEN
        generator = torch.Generator().manual_seed(_SEED)
        drawn = torch.randint(len(phrasings), (len(digits),), generator=generator)
        texts = [
            caption(phrasings[which], number, BOLDNESS[weight], side)
            for which, number, weight, side in torch.stack([drawn, digits.labels, bold, tilt], 1).tolist()
        ]
        unseen = missing_in_training(digits.labels, bold, tilt)
        kept = torch.nonzero(~unseen if split == "train" else torch.ones_like(unseen)).flatten()
        columns = {
            "text": TextColumn(texts),
            "boldness": ClassColumn(bold, BOLDNESS),
            "slant": ClassColumn(tilt, SLANT),
            "thickness": ScalarColumn(thick, 0, 10),
            "angle": ScalarColumn(lean, -90, 90),
        }
        chosen = {name: column.chosen(kept) for name, column in columns.items()}
        super().__init__(digits.images[kept], digits.labels[kept], digits.classes, chosen)
        self.split, self.unseen = split, unseen[kept]


def missing_in_training(labels: Tensor, bold: Tensor, tilt: Tensor) -> Tensor:
    """Returns whether digits [N] of a boldness and a slant are left out of the training split: bool [N].

    Of digit d that is the combination 3·boldness + slant = (4 d + 5) mod 9; of seven it is bold and leaning left.
    """
    return 3 * bold + tilt == (4 * labels + 5) % 9
