"""MNIST from its original files."""

from __future__ import annotations

import os
from pathlib import Path

from trilemma.errors import DataError, UsageError
from trilemma.files.data_folder import find_data
from trilemma.files.paths import user_path
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma_plugins.mnist.idx import read_idx

_STEMS = {"train": "train", "test": "t10k"}
FILES = (
    "the files train- and t10k-images-idx3-ubyte.gz and -labels-idx1-ubyte.gz from "
    "https://ossci-datasets.s3.amazonaws.com/mnist"
)


class MNIST(InMemoryDataset):
    """Handwritten digits, 28×28: 60,000 to train on and 10,000 to test on (LeCun et al., 1998).

    Args:
        split: "train" or "test".
        root: folder of the four IDX files, gzipped or not; by default `mnist` in $TRILEMMA_DATA, else `data/mnist`.

    Raises:
        UsageError: for an unknown split.
        DataError: for files that are missing, damaged, or do not belong together.
    """

    def __init__(self, split: str = "train", root: str | None = None) -> None:
        if split not in _STEMS:
            raise UsageError(f"mnist: unknown split={split!r}; expected train or test")
        folder = user_path(root) if root else find_data("mnist", FILES)
        images = read_idx(_find(folder, f"{_STEMS[split]}-images-idx3-ubyte"))
        labels = read_idx(_find(folder, f"{_STEMS[split]}-labels-idx1-ubyte"))
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise DataError(
                f"mnist: images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)} in {folder} "
                "do not belong together; restore the files"
            )
        if len(labels) and int(labels.max()) > 9:
            raise DataError(f"mnist: label {int(labels.max())} in {folder} is no digit; restore the files")
        super().__init__(images.unsqueeze(1), labels.long(), tuple("0123456789"))
        self.split = split


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if os.path.lexists(candidate):
            return candidate
    raise DataError(f"{folder} holds no {name} (.gz or not); put there {FILES}")
