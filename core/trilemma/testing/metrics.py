"""Checks of every metric, of sets, of pairs and of a model, and of every feature network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trilemma import lookup
from trilemma.errors import TrilemmaError
from trilemma.interfaces.metric import FeatureNetwork, Metric, ModelMetric, Observation, PairMetric
from trilemma.registry import building
from trilemma.testing.generators import keeps_global_generators
from trilemma.testing.local import LOCAL
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.outcome import Skipped

IMAGES, FEATURES, CLASSES = 240, 6, 4
SHAPES = ((1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 8, 8), (2, 1, 1), (1, 32, 32), (3, 64, 64), (1, 1, 1))
# Seeds of a model's metric, and the standard errors that their mean may be off.
SEEDS, ALLOWED = 6, 8.0

Check = tuple[str, Callable[[], str]]


def metric_checks(metric: Any) -> Iterator[Check]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    if isinstance(metric, Metric):
        yield from _of_sets(metric)
    elif isinstance(metric, ModelMetric):
        yield from _of_models(metric)
    elif isinstance(metric, PairMetric):
        yield from _of_pairs(metric)
    else:
        yield from feature_network_checks(metric)


def _of_sets(metric: Metric[Any]) -> Iterator[Check]:
    yield "its value is a number or None", lambda: _number(metric)
    yield "any chunks give the same", lambda: _chunks(metric)
    yield "the order of the images does not matter", lambda: _order(metric)
    yield "worse samples are worse", lambda: _worse(metric)
    yield "real images are near the best", lambda: _real(metric)
    yield "accumulators are apart", lambda: _apart(metric)
    yield "images without labels and logits", lambda: _bare(metric)
    yield "too few images are named", lambda: _few(metric)
    yield "NaN is named", lambda: _nan(metric)
    yield "observations are left alone", lambda: _observations(metric)
    yield "no global generator is drawn from", lambda: _generators(metric)


def _seen(seed: int, worse: bool = False) -> Observation:
    """Features of four classes about centres of their own; worse ones are shifted, spread, and of other classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.eye(CLASSES, FEATURES)
    labels = torch.arange(IMAGES) % CLASSES
    features = centres[labels] + 0.5 * torch.randn(IMAGES, FEATURES, generator=generator)
    if worse:
        features = 3 * features.roll(1, 0) + 4
    logits = -torch.cdist(features, centres).square()
    return Observation(features, logits, labels)


def _filled(metric: Metric[Any], seen: Observation, sizes: Sequence[int] = (IMAGES,)) -> Any:
    taken, first = metric.accumulator(), 0
    for size in sizes:
        taken.update(seen.rows(torch.arange(first, min(first + size, len(seen.features)))))
        first += size
    return taken


def _value(
    metric: Metric[Any], reference: Observation, samples: Observation, sizes: Sequence[int] = (IMAGES,)
) -> float | None:
    found = metric.value(_filled(metric, reference, sizes), _filled(metric, samples, sizes))
    return None if found is None else float(found)


def _known(metric: Metric[Any], *sets: Observation, sizes: Sequence[int] = (IMAGES,)) -> float:
    found = _value(metric, sets[0], sets[1], sizes)
    if found is None:
        raise Skipped("it does not apply to features of labelled images with logits")
    return found


def _number(metric: Metric[Any]) -> str:
    assert isinstance(metric.lower_is_better, bool), f"lower_is_better is {metric.lower_is_better!r}"
    limit = metric.reference_images
    assert limit is None or (isinstance(limit, int) and limit >= 0), f"reference_images is {limit!r}"
    for worse in (False, True):
        found = metric.value(_filled(metric, _seen(1)), _filled(metric, _seen(2, worse)))
        assert found is None or isinstance(found, int | float), f"its value is a {type(found).__name__}"
        assert found is None or math.isfinite(found), f"its value is {found}"
    return "None" if found is None else f"{found:.3g}"


def _chunks(metric: Metric[Any]) -> str:
    reference, samples = _seen(1), _seen(2)
    whole = _known(metric, reference, samples)
    for sizes in ([7] * 35, [1, 0, IMAGES - 2, 1], [100, 100, 100]):
        off = _off(_known(metric, reference, samples, sizes=sizes), whole)
        assert off < 1e-5, f"in batches of {sizes[0]}, … its value moves by a part of {off:.2g}"
    return f"{whole:.3g} in three ways"


def _order(metric: Metric[Any]) -> str:
    reference, samples = _seen(1), _seen(2)
    mixed = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    whole = _known(metric, reference, samples)
    off = _off(_known(metric, reference.rows(mixed), samples.rows(mixed.flip(0)), sizes=[50] * 5), whole)
    assert off < 1e-5, f"in another order its value moves by a part of {off:.2g}"
    return f"to {off:.1g}"


def _off(found: float, expected: float) -> float:
    return abs(found - expected) / (1e-3 + abs(expected))


def _worse(metric: Metric[Any]) -> str:
    real, poor = _known(metric, _seen(1), _seen(2)), _known(metric, _seen(1), _seen(2, worse=True))
    better = real < poor if metric.lower_is_better else real > poor
    way = "lower" if metric.lower_is_better else "higher"
    assert better, f"{way} is better, and real images have {real:.3g}, worse samples {poor:.3g}"
    return f"{real:.3g} and {poor:.3g}"


def _real(metric: Metric[Any]) -> str:
    """Other images of the same law are much nearer to the very same images than worse samples are."""
    same, real, poor = (
        _known(metric, _seen(1), other) for other in (_seen(1), _seen(2), _seen(2, worse=True))
    )
    assert abs(real - same) <= abs(poor - same) / 2, (
        f"the reference itself has {same:.3g}, other real images {real:.3g}, worse samples {poor:.3g}"
    )
    return f"{real:.3g}, the reference itself {same:.3g}"


def _apart(metric: Metric[Any]) -> str:
    reference, samples = _filled(metric, _seen(1)), _filled(metric, _seen(2))
    first = metric.value(reference, samples)
    metric.value(_filled(metric, _seen(3)), _filled(metric, _seen(4, worse=True)))
    assert metric.value(reference, samples) == first, (
        "its value is another one after other images were taken in"
    )
    alone = _value(metric, _seen(1), _seen(2))
    assert alone == first, "its value depends on what other accumulators took in"
    return "reference and samples"


def _bare(metric: Metric[Any]) -> str:
    reference, samples = (Observation(_seen(seed).features) for seed in (1, 2))
    found = _value(metric, reference, samples)
    assert found is None or math.isfinite(found), f"of features alone its value is {found}"
    return "None" if found is None else f"{found:.3g}"


def _few(metric: Metric[Any]) -> str:
    for count in (0, 1):
        few = _seen(2).rows(torch.arange(count))
        try:
            found = _value(metric, _seen(1), few)
        except TrilemmaError:
            continue
        assert found is None or math.isfinite(found), f"of {count} samples its value is {found}"
    return "or measured"


def _nan(metric: Metric[Any]) -> str:
    seen = _seen(2)
    features = seen.features.clone()
    features[3] = math.nan
    clean = _value(metric, _seen(1), seen)
    try:
        found = _value(metric, _seen(1), Observation(features, seen.logits, seen.labels))
    except TrilemmaError as error:
        return str(error)
    assert found == clean, f"of features with NaN its value is {found}"
    return "it does not look at features"


def _observations(metric: Metric[Any]) -> str:
    seen = _seen(1)
    kept = [entry.clone() for entry in _tensors(seen)]
    taken = metric.accumulator()
    taken.update(seen)
    metric.value(taken, taken)
    assert all(torch.equal(*pair) for pair in zip(_tensors(seen), kept, strict=True)), (
        "it writes to what it sees"
    )
    return "features, logits and labels"


def _tensors(seen: Observation) -> list[Tensor]:
    return [entry for entry in (seen.features, seen.logits, seen.labels) if entry is not None]


def _generators(metric: Metric[Any]) -> str:
    return keeps_global_generators(lambda: _value(metric, _seen(1), _seen(2)))


def _of_models(metric: ModelMetric) -> Iterator[Check]:
    yield "it finds numbers by name", lambda: _on_exact(metric, _names)
    yield "the seed decides what it finds", lambda: _on_exact(metric, _seeded)
    yield "batches of any size, but for the draws", lambda: _on_exact(metric, _sizes)
    yield "a worse model is worse", lambda: _on_exact(metric, _worse_model)
    yield "no global generator is drawn from", lambda: _on_exact(metric, _model_generators)
    yield "images and labels are left alone", lambda: _on_exact(metric, _images)


def _exact(off: float = 0.0) -> GaussianMixtureDenoiser:
    return GaussianMixtureDenoiser(LOCAL[0], (-0.4 + off, 0.3 + off), 0.04, None, "eps", (1, 2, 2))


def _given(count: int = 48) -> tuple[Tensor, Tensor]:
    drawn = _exact().draw(count, torch.Generator().manual_seed(5)).clamp(-1, 1)
    return ((drawn + 1) * 127.5).round().div(127.5).sub(1).float(), torch.arange(count) % 2


def _on_exact(metric: ModelMetric, check: Callable[[ModelMetric], str]) -> str:
    try:
        _measured(metric)
    except TrilemmaError as error:
        raise Skipped(f"it measures no exact model: {error}") from error
    return check(metric)


def _measured(
    metric: ModelMetric, seed: int = 1, batch: int = 48, off: float = 0.0
) -> dict[str, float | str]:
    images, labels = _given()
    return metric.measure(_exact(off).eval(), images, labels, batch, seed)


def _first(metric: ModelMetric, **options: Any) -> Tensor:
    """The number that stands for all, of each seed [SEEDS]."""
    found = [next(iter(_measured(metric, seed=seed, **options).values())) for seed in range(SEEDS)]
    return torch.tensor([float(value) for value in found], dtype=torch.float64)


def _names(metric: ModelMetric) -> str:
    found = _measured(metric)
    assert found, "it finds nothing"
    for name, value in found.items():
        assert isinstance(name, str), f"{name!r} is no name"
        assert isinstance(value, float | int | str), f"{name} is a {type(value).__name__}"
        assert isinstance(value, str) or math.isfinite(value), f"{name} is {value}"
    first, value = next(iter(found.items()))
    assert not isinstance(value, str), f"the first of what it finds, {first}, is no number"
    return f"{first} {value:.3g}"


def _seeded(metric: ModelMetric) -> str:
    assert _measured(metric) == _measured(metric), "the same seed finds other numbers"
    return "the same again"


def _sizes(metric: ModelMetric) -> str:
    whole, parts = _first(metric), _first(metric, batch=10)
    spread = math.sqrt(float(whole.var() + parts.var()) / SEEDS) + 1e-5 * float(whole.abs().mean())
    off = float((whole.mean() - parts.mean()).abs()) / spread
    assert off < ALLOWED, (
        f"batches of 48 give {float(whole.mean()):.4g}, of 10 {float(parts.mean()):.4g}, "
        f"{off:.0f} standard errors apart"
    )
    return f"{off:.1f} standard errors apart"


def _worse_model(metric: ModelMetric) -> str:
    exact, other = (float(_first(metric, off=off).mean()) for off in (0.0, 0.6))
    better = exact < other if metric.lower_is_better else exact > other
    way = "lower" if metric.lower_is_better else "higher"
    assert better, f"{way} is better, and the exact model has {exact:.3g}, one of other data {other:.3g}"
    return f"{exact:.3g} and {other:.3g}"


def _model_generators(metric: ModelMetric) -> str:
    return keeps_global_generators(lambda: _measured(metric))


def _images(metric: ModelMetric) -> str:
    images, labels = _given()
    kept = images.clone(), labels.clone()
    metric.measure(_exact().eval(), images, labels, 16, 1)
    assert torch.equal(images, kept[0]), "it writes to the images"
    assert torch.equal(labels, kept[1]), "it writes to the labels"
    return "both"


def _of_pairs(metric: PairMetric) -> Iterator[Check]:
    yield "it gives one finite number a pair", lambda: _one_a_pair(metric)
    yield "a pair's number does not depend on its batch", lambda: _pair_alone(metric)
    yield "worse samples are worse", lambda: _worse_pairs(metric)
    yield "images are left alone", lambda: _pairs_kept(metric)
    yield "no global generator is drawn from", lambda: keeps_global_generators(lambda: _pairs(metric, 0.2))


def _given_pairs(off: float) -> tuple[Tensor, Tensor]:
    """Smooth colour images of 32×32, and the same with noise on them, of 256 levels."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    images = interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)
    samples = images + off * torch.randn(images.shape, generator=generator)
    first, second = ((entry.clamp(0, 1) * 255).round() / 127.5 - 1 for entry in (samples, images))
    return first, second


def _compared(metric: PairMetric, samples: Tensor, images: Tensor) -> Tensor:
    network = None
    if metric.takes_features:
        names = [name for name in building.default_features() if _takes(name, tuple(images.shape[1:]))]
        if not names:
            raise Skipped("no feature network that takes colour images of 32×32 is installed")
        network = lookup.build("metric", names[0])[0]
    return metric.compare(samples, images, network)


def _takes(name: str, shape: tuple[int, ...]) -> bool:
    return bool(lookup.build("metric", name)[0].takes(shape))


def _pairs(metric: PairMetric, off: float) -> Tensor:
    return _compared(metric, *_given_pairs(off))


def _one_a_pair(metric: PairMetric) -> str:
    assert isinstance(metric.lower_is_better, bool), f"lower_is_better is {metric.lower_is_better!r}"
    for off in (0.0, 0.2):
        found = _pairs(metric, off)
        assert found.shape == (6,), f"6 pairs have numbers of shape {tuple(found.shape)}"
        assert bool(found.isfinite().all()), f"a pair has {found.tolist()}"
    return f"{float(found.double().mean()):.3g}"


def _pair_alone(metric: PairMetric) -> str:
    samples, images = _given_pairs(0.2)
    whole = _compared(metric, samples, images).double()
    alone = torch.cat([_compared(metric, x[None], y[None]) for x, y in zip(samples, images, strict=True)])
    error = float((whole - alone).abs().max() / (1e-6 + whole.abs().max()))
    assert error < 1e-4, f"numbers move by {error:.2g} when a pair is compared alone"
    return f"to {error:.1g}"


def _worse_pairs(metric: PairMetric) -> str:
    good, poor = (float(_pairs(metric, off).double().mean()) for off in (0.02, 0.3))
    better = good < poor if metric.lower_is_better else good > poor
    way = "lower" if metric.lower_is_better else "higher"
    assert better, f"{way} is better, and images with little noise have {good:.3g}, with much {poor:.3g}"
    return f"{good:.3g} and {poor:.3g}"


def _pairs_kept(metric: PairMetric) -> str:
    samples, images = _given_pairs(0.2)
    kept = samples.clone(), images.clone()
    _compared(metric, samples, images)
    assert torch.equal(samples, kept[0]), "it writes to the samples"
    assert torch.equal(images, kept[1]), "it writes to the images"
    return "both"


def feature_network_checks(network: FeatureNetwork) -> Iterator[Check]:
    """Yields pairs of a name and a check of a feature network."""
    yield "features are float32, finite, one row an image", lambda: _features(network)
    yield "an image's features do not depend on its batch", lambda: _alone(network)
    yield "other images have other features", lambda: _different(network)
    yield "other shapes are refused", lambda: _shapes(network)
    yield "an empty batch gives none", lambda: _no_images(network)
    yield "labels go through, images are left alone", lambda: _through(network)
    yield "no global generator is drawn from", lambda: keeps_global_generators(lambda: _seen_by(network))


def _pictures(network: FeatureNetwork, count: int = 4) -> Tensor:
    shape = next((shape for shape in SHAPES if network.takes(shape)), None)
    if shape is None:
        raise Skipped(f"it takes images of none of the shapes {', '.join(map(str, SHAPES))}")
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(2))
    return (pixels * 255).round() / 127.5 - 1


def _seen_by(network: FeatureNetwork) -> Observation:
    return network.observe(_pictures(network))


def _features(network: FeatureNetwork) -> str:
    assert isinstance(network.identity, str), "its identity is no string"
    assert network.identity, "its identity is empty"
    seen = _seen_by(network)
    assert seen.features.dtype == torch.float32, f"features are {seen.features.dtype}, not float32"
    assert seen.features.dim() == 2, f"features have shape {tuple(seen.features.shape)}, not [B, D]"
    assert len(seen.features) == 4, f"4 images have {len(seen.features)} rows of features"
    assert bool(seen.features.isfinite().all()), "features are not finite"
    assert not seen.features.requires_grad, "features record gradients"
    if seen.logits is not None:
        classes = getattr(network, "classes", None)
        assert seen.logits.dim() == 2, f"logits have shape {tuple(seen.logits.shape)}, not [B, classes]"
        assert len(seen.logits) == 4, f"4 images have {len(seen.logits)} rows of logits"
        assert classes is None or len(classes) == seen.logits.shape[1], (
            f"{seen.logits.shape[1]} logits for {len(classes or ())} classes"
        )
    return f"{seen.features.shape[1]} features"


def _alone(network: FeatureNetwork) -> str:
    images = _pictures(network)
    whole = network.observe(images).features
    alone = torch.cat([network.observe(image[None]).features for image in images])
    error = float((whole - alone).abs().max() / (1e-6 + whole.abs().max()))
    assert error < 1e-4, f"features move by {error:.2g} when an image is looked at alone"
    assert torch.equal(network.observe(images).features, whole), "the same images have other features"
    return f"to {error:.1g}"


def _different(network: FeatureNetwork) -> str:
    features = _seen_by(network).features
    distances = torch.pdist(features.double())
    assert float(distances.min()) > 0, "two images have the same features"
    return f"{float(distances.min()):.3g} apart"


def _shapes(network: FeatureNetwork) -> str:
    refused = [shape for shape in SHAPES if not network.takes(shape)]
    for shape in refused:
        try:
            network.observe(torch.zeros(2, *shape))
        except TrilemmaError:
            continue
        except Exception as error:
            # A plugin may raise anything.
            raise AssertionError(
                f"images of {shape} raise {type(error).__name__}, not a TrilemmaError: {error}"
            ) from error
        raise AssertionError(f"it says that it does not take images of {shape}, and observes them")
    if not refused:
        raise Skipped("it takes images of any shape")
    return f"{len(refused)} shapes"


def _no_images(network: FeatureNetwork) -> str:
    images = _pictures(network)
    width = network.observe(images).features.shape[1]
    try:
        none = network.observe(images[:0]).features
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"an empty batch raises {type(error).__name__}: {error}") from error
    assert none.shape == (0, width), f"an empty batch has features of shape {tuple(none.shape)}"
    return f"(0, {width})"


def _through(network: FeatureNetwork) -> str:
    images, labels = _pictures(network), torch.arange(4)
    kept = images.clone()
    seen = network.observe(images, labels)
    assert torch.equal(images, kept), "it writes to the images"
    assert seen.labels is not None, "the labels that it is given are lost"
    assert torch.equal(seen.labels.cpu(), labels), "the labels come out other than they were given"
    assert network.observe(images).labels is None, "images without labels get some"
    return "as they were"
