"""The splits of a data set: its own, or, of one that has none, two parts by one rule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.dataset import Dataset
from trilemma.registry.spec import parse_spec

NAMES = ("train", "test")
RULE = "the data set has no splits: the tenth of its images whose pixels have the smallest sha256 is test"
BATCH = 500


class LabelledImages(Protocol):
    """A split of a data set: labels int64 [N], and images uint8 [B, C, H, W] at indices [B], read when asked for."""

    labels: Tensor

    def read(self, indices: Tensor) -> Tensor: ...


class Part(Dataset):
    """The images of a data set at some indices.

    Args:
        whole: the data set.
        indices: int64 [N'].
    """

    def __init__(self, whole: LabelledImages, indices: Tensor) -> None:
        first = whole.read(indices[:1])
        super().__init__(whole.labels[indices], getattr(whole, "classes", ()), tuple(first.shape[1:]))
        self._whole, self.indices = whole, indices

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._whole.read(self.indices[indices])


class Splits:
    """The parts `train` and `test` of a data set, each read once.

    A data set has splits where its spec can be built with `split=train` or with `split=test`. Of one that has none all
    images are read and put in the order of the sha256 of their pixels: the first tenth, one at least, is `test`, the
    rest `train`. That does not depend on the order of the files, and equal images stay together but for those at the
    boundary.

    Args:
        spec: of the data set.
        build: as `trilemma.registry.building.build`.
    """

    def __init__(self, spec: str, build: Callable[..., tuple[Any, str]]) -> None:
        self.spec = spec
        self._build = build
        self._parts: dict[str, LabelledImages] = {}
        self._canonical = spec
        self.rule: str | None = None

    def part(self, name: str) -> LabelledImages:
        """Returns a part by its name.

        Raises:
            UsageError: for a data set that has one of the two splits alone, or fewer than two images and no split.
            TrilemmaError: for one that cannot be built or read.
        """
        if name not in self._parts:
            try:
                self._own(name)
            except UsageError:
                if self._has(*(other for other in NAMES if other != name)):
                    raise
                self._split()
        return self._parts[name]

    def trained_on(self, stated: str | None) -> list[str] | None:
        """Returns which parts a model saw in training whose card states a data set; None where that is not known."""
        if stated is None or _without_split(stated) not in map(_without_split, (self.spec, self._canonical)):
            return None
        return list(NAMES) if self.rule else [parse_spec(stated).options.get("split", NAMES[0])]

    def _own(self, name: str) -> None:
        """Reads a split that the data set has itself."""
        self._parts[name], self._canonical = self._build("dataset", self.spec, split=name)

    def _has(self, name: str) -> bool:
        try:
            self._own(name)
        except UsageError:
            return False
        return True

    def _split(self) -> None:
        """Splits the data set by the rule."""
        whole, self._canonical = self._build("dataset", self.spec)
        if len(whole.labels) < 2:
            raise UsageError(
                f"data set {self.spec} has no splits and {len(whole.labels)} images; give one of at least two"
            )
        digests = [
            hashlib.sha256(image.contiguous().numpy().data).digest()
            for rows in torch.arange(len(whole.labels)).split(BATCH)
            for image in whole.read(rows)
        ]
        order = torch.tensor(sorted(range(len(digests)), key=digests.__getitem__))
        tenth = max(1, len(order) // 10)
        for name, chosen in (("test", order[:tenth]), ("train", order[tenth:])):
            self._parts[name] = Part(whole, chosen.sort().values)
        self.rule = RULE


def _without_split(spec: str) -> tuple[str, dict[str, Any]]:
    parsed = parse_spec(spec)
    return parsed.name, {key: value for key, value in parsed.options.items() if key != "split"}
