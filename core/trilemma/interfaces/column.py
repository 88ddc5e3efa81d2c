"""Columns of a data set: the value of one condition for every example."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from trilemma.errors import UsageError


class Column(ABC):
    """The values of one condition, example by example.

    Attributes:
        kind: class, scalar, text or image: the kind of the condition that takes them.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def at(self, indices: Tensor) -> Any:
        """Returns the values of the examples at indices [B]."""

    def known(self, indices: Tensor) -> Any:
        """Returns the values of the examples at indices [B], a list with None where some have none."""
        values, missing = self.at(indices), self.missing[indices]
        if not bool(missing.any()):
            return values
        return [None if lost else value for value, lost in zip(_plain(values), missing.tolist(), strict=True)]

    @abstractmethod
    def chosen(self, indices: Tensor) -> Column:
        """Returns the column of some of the examples."""

    @abstractmethod
    def digest(self) -> str:
        """Returns a digest of all values; other values have another one."""

    @property
    def missing(self) -> Tensor:
        """Says which examples have no value: bool [N]."""
        return torch.zeros(len(self), dtype=torch.bool)


@final
class ClassColumn(Column):
    """Labels.

    Args:
        values: int64 [N], indices into `classes`; −1 where there is none.
        classes: names of the classes.
    """

    kind = "class"

    def __init__(self, values: Tensor, classes: Sequence[str]) -> None:
        self.values, self.classes = values, tuple(classes)

    def __len__(self) -> int:
        return len(self.values)

    def at(self, indices: Tensor) -> Tensor:
        """Returns labels int64 [B]."""
        return self.values[indices]

    def chosen(self, indices: Tensor) -> ClassColumn:
        return ClassColumn(self.values[indices], self.classes)

    def digest(self) -> str:
        return _digest(repr(self.classes).encode(errors="surrogateescape"), self.values.cpu().numpy().data)

    @property
    def missing(self) -> Tensor:
        return self.values < 0


@final
class ScalarColumn(Column):
    """Numbers.

    Args:
        values: float32 [N]; NaN where there is none.
        low, high: the range that they are meant to lie in; by default that of the values.

    Raises:
        UsageError: for a value out of the range.
    """

    kind = "scalar"

    def __init__(self, values: Tensor, low: float | None = None, high: float | None = None) -> None:
        self.values = values.to(torch.float32)
        known = self.values[~self.missing]
        self.low = low if low is not None else float(known.min()) if len(known) else 0.0
        self.high = high if high is not None else float(known.max()) if len(known) else 0.0
        if len(known) and not self.low <= float(known.min()) <= float(known.max()) <= self.high:
            raise UsageError(
                f"values from {float(known.min()):g} to {float(known.max()):g} leave the range of the column, "
                f"{self.low:g} to {self.high:g}; give another range"
            )

    def __len__(self) -> int:
        return len(self.values)

    def at(self, indices: Tensor) -> Tensor:
        """Returns numbers float32 [B]."""
        return self.values[indices]

    def chosen(self, indices: Tensor) -> ScalarColumn:
        return ScalarColumn(self.values[indices], self.low, self.high)

    def digest(self) -> str:
        return _digest(repr((self.low, self.high)).encode(), self.values.cpu().numpy().data)

    @property
    def missing(self) -> Tensor:
        return self.values.isnan()


@final
class TextColumn(Column):
    """Texts, such as captions.

    Args:
        values: N texts; None where there is none.
    """

    kind = "text"

    def __init__(self, values: Sequence[str | None]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def at(self, indices: Tensor) -> list[str | None]:
        """Returns B texts."""
        return [self.values[index] for index in indices.tolist()]

    def chosen(self, indices: Tensor) -> TextColumn:
        return TextColumn(self.at(indices))

    def digest(self) -> str:
        # Lengths come before the texts, so that no two lists give the same bytes.
        return _digest(
            *(
                b"-" if text is None else f"{len(text)}:{text}".encode(errors="surrogateescape")
                for text in self.values
            )
        )

    @property
    def missing(self) -> Tensor:
        return torch.tensor([text is None for text in self.values], dtype=torch.bool)


@final
class ImageColumn(Column):
    """Images, read when they are asked for.

    Args:
        read: gives the images uint8 [B, C, H, W] at indices [B].
        count: number of examples.
        shape: (C, H, W) of one image.
        content: a digest of all images.
    """

    kind = "image"

    def __init__(
        self, read: Callable[[Tensor], Tensor], count: int, shape: Sequence[int], content: str
    ) -> None:
        self._read, self._count, self.shape, self._content = read, count, tuple(shape), content

    def __len__(self) -> int:
        return self._count

    def at(self, indices: Tensor) -> Tensor:
        """Returns images uint8 [B, C, H, W]."""
        return self._read(indices)

    def chosen(self, indices: Tensor) -> ImageColumn:
        content = _digest(self._content.encode(), indices.cpu().contiguous().numpy().data)
        return ImageColumn(lambda rows: self._read(indices[rows]), len(indices), self.shape, content)

    def digest(self) -> str:
        return _digest(repr(self.shape).encode(), self._content.encode())


@final
class Values(Mapping[str, Any]):
    """The values of some examples by the name of the condition; a column is read when its value is asked for.

    Args:
        columns: of the data set.
        indices: of the examples [B].
    """

    def __init__(self, columns: Mapping[str, Column], indices: Tensor) -> None:
        self._columns, self._indices = columns, indices

    def __getitem__(self, name: str) -> Any:
        return self._columns[name].at(self._indices)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _plain(values: Any) -> list[Any]:
    return list(values.tolist() if isinstance(values, Tensor) and values.dim() == 1 else values)


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
