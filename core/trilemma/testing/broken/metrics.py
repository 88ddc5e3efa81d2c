"""Metrics and feature networks with one fault each, and one of each without."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from trilemma.errors import TrilemmaError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.metric import Metric, ModelMetric, Observation, PairMetric


class Sums:
    """Number and sum of the features that it has seen, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor = torch.zeros((), dtype=torch.float64)

    def update(self, batch: Observation) -> None:
        self.total = self.total + batch.features.double().sum(0)
        self.count += len(batch.features)


class RightMetric(Metric[Any]):
    """The distance between the means of the features."""

    lower_is_better = True

    def accumulator(self) -> Any:
        return Sums()

    def value(self, reference: Any, samples: Any) -> Any:
        if not reference.count * samples.count:
            raise TrilemmaError("a mean needs at least one image; draw more samples")
        off = float((samples.total / samples.count - reference.total / reference.count).norm())
        if not math.isfinite(off):
            raise TrilemmaError("the features are not finite; check the images")
        return off


class HigherIsBetter(RightMetric):
    """A distance that is said to be better the larger it is."""

    lower_is_better = False


class AsTensor(RightMetric):
    """Gives its value as a tensor."""

    def value(self, reference: Any, samples: Any) -> Any:
        return torch.tensor(super().value(reference, samples))


class MeanOfBatches(RightMetric):
    """Takes the mean of the batches' means."""

    class Means(Sums):
        def update(self, batch: Observation) -> None:
            if len(batch.features):
                self.total = self.total + batch.features.double().mean(0)
                self.count += 1

    def accumulator(self) -> Any:
        return self.Means()


class FirstImages(RightMetric):
    """Looks at the first hundred images alone."""

    class First(Sums):
        def update(self, batch: Observation) -> None:
            super().update(batch.rows(torch.arange(min(len(batch.features), max(0, 100 - self.count)))))

    def accumulator(self) -> Any:
        return self.First()


class KnowsItsReference(RightMetric):
    """Takes all but the very same images for bad."""

    def value(self, reference: Any, samples: Any) -> Any:
        off = super().value(reference, samples)
        return off + 100 * (off > 0)


class OneForAll(RightMetric):
    """Has one accumulator for all sets of images."""

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    class Shared(Sums):
        seen: ClassVar[list[Tensor]] = []

        def update(self, batch: Observation) -> None:
            super().update(batch)
            self.seen.append(batch.features)

    def accumulator(self) -> Any:
        return self.Shared()

    def value(self, reference: Any, samples: Any) -> Any:
        return super().value(reference, samples) + len(self.Shared.seen)


class NeedsLogits(RightMetric):
    """Takes it that every image has a label and logits."""

    class Labelled(Sums):
        def update(self, batch: Observation) -> None:
            super().update(batch)
            assert batch.labels is not None
            assert batch.logits is not None

    def accumulator(self) -> Any:
        return self.Labelled()


class OfNothing(RightMetric):
    """Divides by the number of images."""

    def value(self, reference: Any, samples: Any) -> Any:
        return float("nan") if not samples.count else super().value(reference, samples)


class HidesNaNs(RightMetric):
    """Takes values that are not finite for 0."""

    class Cleaned(Sums):
        def update(self, batch: Observation) -> None:
            super().update(Observation(batch.features.nan_to_num()))

    def accumulator(self) -> Any:
        return self.Cleaned()


class CentresInPlace(RightMetric):
    """Writes to the features it is shown."""

    class Scaling(Sums):
        def update(self, batch: Observation) -> None:
            batch.features.mul_(2)
            super().update(batch)

    def accumulator(self) -> Any:
        return self.Scaling()


class Subsamples(RightMetric):
    """Jitters its value by torch's global generator."""

    def value(self, reference: Any, samples: Any) -> Any:
        return super().value(reference, samples) + 1e-9 * float(torch.rand(()))


class RightModelMetric(ModelMetric):
    """The mean squared error of a network's x̂₀ on the images, at the noise of t = 0.5."""

    def measure(
        self, model: Denoiser, images: Tensor, labels: Tensor | None, batch_size: int, seed: int
    ) -> dict[str, float | str]:
        generator = torch.Generator().manual_seed(seed)
        total = sum(self.squares(model, x, generator) for x in images.split(batch_size))
        return {"error": total / len(images)}

    def squares(self, model: Denoiser, x: Tensor, generator: torch.Generator) -> float:
        t = torch.full((len(x),), 0.5)
        noise = torch.randn(x.shape, generator=generator)
        z = model.process.perturb(x, t.double(), noise)
        with torch.no_grad():
            cond = model.prepare(None).take(torch.arange(len(x)))
            answer = model(z, t, **cond)
        return float((answer - noise).square().flatten(1).mean(1).sum())


class NoNumber(RightModelMetric):
    """Names no number first."""

    def measure(
        self, model: Denoiser, images: Tensor, labels: Tensor | None, batch_size: int, seed: int
    ) -> dict[str, float | str]:
        return {"method": "by hand", **super().measure(model, images, labels, batch_size, seed)}


class SeedOfItsOwn(RightModelMetric):
    """Draws as the time of day has it."""

    def squares(self, model: Denoiser, x: Tensor, generator: torch.Generator) -> float:
        generator.seed()
        return super().squares(model, x, generator)


class SumsBatches(RightModelMetric):
    """Adds the means of the batches up."""

    def squares(self, model: Denoiser, x: Tensor, generator: torch.Generator) -> float:
        return super().squares(model, x, generator) / len(x)


class LargerIsBetter(RightModelMetric):
    """Says that a larger error is better."""

    lower_is_better = False


class GlobalDraws(RightModelMetric):
    """Draws from torch's global generator beside its own."""

    def squares(self, model: Denoiser, x: Tensor, generator: torch.Generator) -> float:
        return super().squares(model, x, generator) + 1e-12 * float(torch.rand(()))


class ScalesImages(RightModelMetric):
    """Writes to the images it is given."""

    def squares(self, model: Denoiser, x: Tensor, generator: torch.Generator) -> float:
        return super().squares(model, x.mul_(0.9), generator)


class RightPairMetric(PairMetric):
    """The mean absolute difference of two images."""

    lower_is_better = True

    def compare(self, samples: Tensor, images: Tensor, network: Any) -> Tensor:
        return (samples - images).abs().mean((1, 2, 3))


class PairsInOne(RightPairMetric):
    """Gives one number of all pairs."""

    def compare(self, samples: Tensor, images: Tensor, network: Any) -> Tensor:
        return super().compare(samples, images, network).mean()


class InfinitePairs(RightPairMetric):
    """Is infinite for equal images."""

    lower_is_better = False

    def compare(self, samples: Tensor, images: Tensor, network: Any) -> Tensor:
        return 1 / super().compare(samples, images, network)


class PairsByTheirBatch(RightPairMetric):
    """Divides by the largest difference of the batch."""

    def compare(self, samples: Tensor, images: Tensor, network: Any) -> Tensor:
        found = super().compare(samples, images, network)
        return found.mean() * found / found.amax().clamp_min(1e-9)


class SimilarIsWorse(RightPairMetric):
    """Says that a larger difference is better."""

    lower_is_better = False


class ScalesPairs(RightPairMetric):
    """Writes to the samples that it is given."""

    def compare(self, samples: Tensor, images: Tensor, network: Any) -> Tensor:
        return super().compare(samples.mul_(0.9), images, network)


class RightFeatures:
    """The pixels of images of 8×8 and their squares."""

    identity = "pixels"

    def takes(self, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == (1, 8, 8)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        if not self.takes(tuple(images.shape[1:])):
            raise TrilemmaError(f"pixels takes images of (1, 8, 8), not {tuple(images.shape[1:])}")
        flat = images.flatten(1)
        return Observation(self.features(torch.cat([flat, flat.square()], 1)), None, labels)

    def features(self, values: Tensor) -> Tensor:
        return values


class DoubleFeatures(RightFeatures):
    """Has features in float64."""

    def features(self, values: Tensor) -> Tensor:
        return values.double()


class CentredFeatures(RightFeatures):
    """Takes the mean of the batch away."""

    def features(self, values: Tensor) -> Tensor:
        return values - values.mean(0) if len(values) else values


class ConstantFeatures(RightFeatures):
    """Sees the same in all images."""

    def features(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values)


class AnyShape(RightFeatures):
    """Observes images of shapes that it says it does not take."""

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        return Observation(self.features(images.flatten(1)), None, labels)


class NeedsAnImage(RightFeatures):
    """Looks at the first image of the batch."""

    def features(self, values: Tensor) -> Tensor:
        return values + 0 * values[0]


class LosesLabels(RightFeatures):
    """Forgets the labels."""

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        return super().observe(images)


class NoisyFeatures(RightFeatures):
    """Draws from torch's global generator."""

    def features(self, values: Tensor) -> Tensor:
        torch.rand(())
        return values
