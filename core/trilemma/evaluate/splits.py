"""The splits of a data set: its own or, where it has none, two parts by one rule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.column import Column
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.held_out import held_out_indices
from trilemma.registry.spec import parse_spec

NAMES = ("train", "test")
RULE = "the data set has no splits: the tenth of its images whose pixels have the smallest sha256 is test"
HELD_OUT_RULE = "the data set has no splits: the images that were held out of the model's training are test"
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
        columns: Mapping[str, Column] = getattr(whole, "columns", {})
        others = {name: column.chosen(indices) for name, column in columns.items() if name != LABEL}
        super().__init__(whole.labels[indices], getattr(whole, "classes", ()), tuple(first.shape[1:]), others)
        self._whole, self.indices = whole, indices

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images uint8 [B, C, H, W] at indices [B]."""
        return self._whole.read(self.indices[indices])


@dataclass(frozen=True)
class Training:
    """The account that a model's card gives of the images that it was trained on.

    Attributes:
        dataset: spec of the data set.
        held_out: fraction of it that was held out, by `trilemma.interfaces.held_out`; 0 for none.
        seed: of the training.
        fingerprint: of the data set at that time; None where the card does not say.
        began_elsewhere: whether the training began with a model that may have seen the held-out images.
    """

    dataset: str
    held_out: float = 0.0
    seed: int = 0
    fingerprint: str | None = None
    began_elsewhere: bool = False

    @classmethod
    def of(cls, card: Mapping[str, Any] | None) -> Training | None:
        """Returns what a card says; None for one that names no data set."""
        made, dataset = (card or {}).get("provenance", {}), (card or {}).get("data", {}).get("dataset")
        if not isinstance(dataset, str):
            return None
        elsewhere = "start" in made and not made.get("start_held_out", False)
        return cls(
            dataset, made.get("held_out", 0.0), made.get("seed", 0), made.get("data_sha256"), elsewhere
        )


class Splits:
    """The parts `train` and `test` of a data set, each read once, without mirrored or cropped views.

    A data set has splits where its spec can be built with `split=train` or with `split=test`. Where it has none and a
    part of it was held out of a training, that part is `test`, as long as the data set is unchanged. Otherwise all
    images are read and sorted by the sha256 of their pixels: the first tenth, at least one image, is `test`, the rest
    `train`. This does not depend on the order of the files, and equal images stay together, except at the boundary.

    Args:
        spec: of the data set.
        build: as `trilemma.registry.building.build`.
        training: of the model to measure.
    """

    def __init__(
        self, spec: str, build: Callable[..., tuple[Any, str]], training: Training | None = None
    ) -> None:
        self.spec = spec
        self._build = build
        self._training = training
        self._parts: dict[str, LabelledImages] = {}
        self._canonical = spec
        self.rule: str | None = None

    def part(self, name: str) -> LabelledImages:
        """Returns a part by its name: train, test, or any other split that the data set has.

        Raises:
            UsageError: for a data set that has one of the two splits alone, or fewer than two images and no split.
            TrilemmaError: for one that cannot be built or read.
        """
        if name not in self._parts:
            try:
                self._own(name)
            except UsageError:
                if name not in NAMES or self._has(*(other for other in NAMES if other != name)):
                    raise
                self._split()
        return self._parts[name]

    def trained_on(self, training: Training | None) -> list[str] | None:
        """Returns the parts from which a model saw images in training; None where that is not known."""
        if training is None or not self._is_data_of(training):
            return None
        if self.rule is None:
            return [parse_spec(training.dataset).options.get("split", NAMES[0])]
        if not training.held_out:
            return list(NAMES)
        if self.rule == HELD_OUT_RULE and training == self._training and not training.began_elsewhere:
            return [NAMES[0]]
        # It may have seen images of either part.
        return None

    def _is_data_of(self, training: Training) -> bool:
        return _without_split(training.dataset) in map(_without_split, (self.spec, self._canonical))

    def _was(self, training: Training, whole: LabelledImages) -> bool:
        """Returns whether a data set is still the one that a part was held out of."""
        if not training.held_out or training.fingerprint is None or not self._is_data_of(training):
            return False
        return isinstance(whole, Dataset) and whole.fingerprint() == training.fingerprint

    def _own(self, name: str) -> None:
        """Reads a split that the data set has itself."""
        whole, self._canonical = self._build("dataset", self.spec, split=name)
        self._parts[name] = _originals(whole)

    def _has(self, name: str) -> bool:
        try:
            self._own(name)
        except UsageError:
            return False
        return True

    def _split(self) -> None:
        """Splits the data set by the part that was held out of it, or by the rule."""
        whole, self._canonical = self._build("dataset", self.spec)
        count = len(whole.labels) // getattr(whole, "copies", 1)
        if count < 2:
            raise UsageError(
                f"data set {self.spec} has no splits and {count} images; give one of at least two"
            )
        if self._training is not None and self._was(self._training, whole):
            test = held_out_indices(count, self._training.held_out, self._training.seed)
            self.rule = HELD_OUT_RULE
        else:
            test, self.rule = _smallest_digests(whole, count), RULE
        rest = torch.ones(count, dtype=torch.bool)
        rest[test] = False
        self._parts = {"test": Part(whole, test), "train": Part(whole, rest.nonzero().flatten())}


def _smallest_digests(whole: LabelledImages, count: int) -> Tensor:
    """The tenth of the first `count` images whose pixels have the smallest sha256, sorted; one at least."""
    digests = [
        hashlib.sha256(image.contiguous().numpy().data).digest()
        for rows in torch.arange(count).split(BATCH)
        for image in whole.read(rows)
    ]
    order = torch.tensor(sorted(range(count), key=digests.__getitem__))
    return order[: max(1, count // 10)].sort().values


def _originals(whole: LabelledImages) -> LabelledImages:
    """A data set without its mirrored or cropped views."""
    copies = getattr(whole, "copies", 1)
    return whole if copies == 1 else Part(whole, torch.arange(len(whole.labels) // copies))


def _without_split(spec: str) -> tuple[str, dict[str, Any]]:
    parsed = parse_spec(spec)
    return parsed.name, {key: value for key, value in parsed.options.items() if key != "split"}
