"""Metrics: a number of two sets of images, accumulated batch by batch, of pairs of images, or of a model and images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from trilemma.interfaces.denoiser import Denoiser
from trilemma.registry.options import WithOptions


@dataclass(frozen=True)
class Observation:
    """A batch of images as the feature network sees it.

    Attributes:
        features: [B, D], float32.
        logits: class logits [B, classes], None from a network that does not classify.
        labels: the classes [B] the images have or were asked to have, None where there are none.
        images: the images themselves [B, C, H, W], of 256 grey levels in [−1, 1]; None where they are not at hand.
        told: other values that they have or were asked to have, by the name of the condition: B of each, such as texts.
    """

    features: Tensor
    logits: Tensor | None = None
    labels: Tensor | None = None
    images: Tensor | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, chosen: Tensor) -> Observation:
        """Returns the images picked by a mask or by indices."""
        return Observation(
            self.features[chosen],
            None if self.logits is None else self.logits[chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.images is None else self.images[chosen],
            values_at(self.told, chosen),
        )


def values_at(told: Mapping[str, Any], chosen: Tensor) -> dict[str, Any]:
    """Returns some of the values of every name: tensors [N, ...] or lists of N, picked by a mask or by indices."""
    rows = (chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen).cpu()
    return {
        name: values[rows] if isinstance(values, Tensor) else [values[row] for row in rows.tolist()]
        for name, values in told.items()
    }


@runtime_checkable
class FeatureNetwork(Protocol):
    """A fixed network whose activations are the space in which distributions are compared.

    It may have `classes`, the names of the classes of its logits. On data with other classes the logits are ignored.
    """

    @property
    def identity(self) -> str:
        """Name and sha256 of its weights; distances in different networks do not compare."""
        ...

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether it takes images of a shape (C, H, W)."""
        ...

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        """Returns the features of images [B, C, H, W] with pixels in [-1, 1]."""
        ...


class Accumulator(Protocol):
    """The statistics that a metric keeps of one set of images."""

    def update(self, batch: Observation) -> None:
        """Takes in one more batch."""
        ...


A = TypeVar("A", bound=Accumulator)


class Metric(WithOptions, ABC, Generic[A]):
    """A number that compares a set of samples with a set of reference images.

    Attributes:
        reference_images: the most reference images it takes (in the split's class proportions), None for all.
        lower_is_better: whether a lower number is the better one.
    """

    reference_images: int | None = None
    lower_is_better: bool = False

    @abstractmethod
    def accumulator(self) -> A:
        """Returns an empty accumulator; one takes the reference images, another the samples."""

    @abstractmethod
    def value(self, reference: A, samples: A) -> float | None:
        """Returns the metric; None where it does not apply (class agreement of samples without classes).

        Raises:
            TrilemmaError: for too few images or features that are not finite.
        """


AnyMetric = Metric[Any]


class PairMetric(WithOptions, ABC):
    """A number of each sample beside the image that it was drawn for, such as the large one of a small picture.

    Attributes:
        lower_is_better: whether a lower number is the better one.
        takes_features: whether it compares in the feature network of the evaluation.
    """

    lower_is_better: bool = False
    takes_features: bool = False

    @abstractmethod
    def compare(self, samples: Tensor, images: Tensor, network: FeatureNetwork | None) -> Tensor:
        """Returns one finite number a pair [B]; their mean over all pairs is the metric.

        Args:
            samples: [B, C, H, W], pixels of 256 levels in [−1, 1].
            images: those that they were drawn for, alike.
            network: of the evaluation; None where it does not take one.

        Raises:
            TrilemmaError: for a network that it cannot compare in.
        """


class ModelMetric(WithOptions, ABC):
    """Numbers of a model itself on images of the data, such as a likelihood; it draws no samples.

    Attributes:
        lower_is_better: whether a lower first number is the better one.
        measures: the kinds of models that it measures.
    """

    lower_is_better: bool = True
    measures: ClassVar[tuple[type[nn.Module], ...]] = (Denoiser,)

    def seen_by(self, features: str | None) -> ModelMetric:
        """Returns the metric with the feature network of an evaluation, by name, where it needs one and has none."""
        return self

    @abstractmethod
    def measure(
        self, model: Any, images: Tensor, labels: Tensor | None, batch_size: int, seed: int
    ) -> dict[str, float | str]:
        """Returns the measured numbers by name; the first stands for all of them.

        Args:
            model: of one of the kinds that it `measures`, in evaluation mode, with its own operators: they can be
                differentiated.
            images: with pixels in [−1, 1], [N, C, H, W].
            labels: int64 [N], None where there are none.
            batch_size: images in one call of the network.
            seed: of every random draw.

        Raises:
            TrilemmaError: for a model that it cannot measure.
        """
