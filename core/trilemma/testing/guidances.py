"""What every guidance must do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch

from trilemma.engine.sampling import sample
from trilemma.errors import UsageError
from trilemma.guiding.composition import Modifier
from trilemma.interfaces.guidance import Guidance
from trilemma.testing.counting import Counting
from trilemma.testing.empty import without_a_prediction
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.guided import classifier_free_target, guided_prediction
from trilemma.testing.local import LOCAL
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.outcome import Skipped

_CONDITION = {"class": 0}


def guidance_checks(guidance: Guidance) -> Iterator[tuple[str, Callable[[], str]]]:
    """Pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    if isinstance(guidance, Modifier) and guidance.guidance is None:
        guidance = dataclasses.replace(guidance, guidance=TowardsClass())
    yield "branches name the model's conditions", lambda: _branches(guidance)
    if guidance.linear:
        yield "weights are one a branch and sum to 1", lambda: _weights(guidance)
        yield "branches that agree are left alone", lambda: _guiding(guidance, _agreement)
    if hasattr(guidance, "scale") and guidance.neutral_scale is not None:
        yield "its neutral scale is no guidance", lambda: _guiding(guidance, _neutral)
    if _is_classifier_free(guidance):
        yield "the exact target of its scale", lambda: _guiding(guidance, _target)
    yield "pays its branches", lambda: _guiding(guidance, _pays)
    yield "same bits in every batch", lambda: _guiding(guidance, _batches)
    yield "samples are finite", lambda: _guiding(guidance, _finite)
    yield (
        "an empty batch gives none",
        lambda: _guiding(guidance, lambda given: without_a_prediction(given, _model(), _CONDITION)),
    )


@dataclasses.dataclass(frozen=True)
class TowardsClass(Guidance):
    """ε_∅ + 3 (ε_c − ε_∅), for modifiers to act on."""

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond), dict.fromkeys(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (3.0, -2.0)


def _guiding(guidance: Guidance, check: Callable[[Guidance], str]) -> str:
    """A check on the exact model, where the guidance can guide it."""
    try:
        guidance.check(_model(), _CONDITION)
        guidance.networks(_model())
    except UsageError as error:
        raise Skipped(f"the exact model cannot be guided: {error}") from error
    return check(guidance)


def _branches(guidance: Guidance) -> str:
    given = dict(_CONDITION)
    branches = guidance.branches(given)
    assert given == _CONDITION, "branches changes the conditions it is given"
    assert 1 <= len(branches) <= 4, f"{len(branches)} branches; the engine runs 1 to 4"
    for branch in branches:
        assert set(branch) <= set(_CONDITION), (
            f"a branch names {sorted(set(branch) - set(_CONDITION))}, unknown to the model"
        )
    return f"{len(branches)} in one batch"


def _weights(guidance: Guidance) -> str:
    count = len(guidance.branches(_CONDITION))
    for t in (0.1, 0.5, 1.0):
        weights = guidance.weights(t)
        assert len(weights) == count, f"{len(weights)} weights for {count} branches"
        assert abs(sum(weights) - 1) < 1e-12, f"weights at t = {t} sum to {sum(weights):g}, not to 1"
    return f"{guidance.weights(0.5)} at t = 0.5"


def _agreement(guidance: Guidance) -> str:
    """Where the class changes nothing, guidance changes nothing."""
    model = GaussianDenoiser(AngleProcess(), (0.3, 0.3), 0.25)
    plain, guided = (
        sample(
            model, 4, sampler="ddim", steps=8, cond=_CONDITION, guidance=given, dtype=torch.float64
        ).samples
        for given in (None, guidance)
    )
    error = float((plain - guided).abs().max())
    assert error < 1e-9, f"samples move by {error:.2g} though every branch says the same"
    return f"to {error:.1g}"


def _model() -> GaussianDenoiser:
    return GaussianDenoiser(AngleProcess(), (0.5, -0.2), 0.25)


def _neutral(guidance: Guidance) -> str:
    """Bit for bit the conditional model."""
    one = cast(Guidance, dataclasses.replace(cast(Any, guidance), scale=guidance.neutral_scale))
    plain, guided = (
        sample(
            _model(), 4, sampler="ddim", steps=8, cond=_CONDITION, guidance=given, dtype=torch.float64
        ).samples
        for given in (None, one)
    )
    assert torch.equal(plain, guided), (
        f"scale {guidance.neutral_scale:g} moves samples by {float((plain - guided).abs().max()):.2g}"
    )
    return f"{len(one.branches(_CONDITION))} branch(es)"


def _is_classifier_free(guidance: Guidance) -> bool:
    """Whether it promises ε_∅ + s (ε_c − ε_∅): one scale at all times, neutral at 1, of the condition and none."""
    return (
        guidance.linear
        and hasattr(guidance, "scale")
        and guidance.neutral_scale == 1
        and not isinstance(guidance, Modifier)
        and guidance.weights(0.25) == guidance.weights(0.75)
        and guidance.branches(_CONDITION) in ([_CONDITION, {"class": None}], [{"class": None}, _CONDITION])
    )


def _target(guidance: Guidance) -> str:
    """ε_∅ + s (ε_c − ε_∅) of a mixture under every process, whatever the network puts out."""
    worst = 0.0
    z = torch.linspace(-1.5, 1.5, 4, dtype=torch.float64).view(-1, 1, 1, 1)
    labels = torch.full((len(z),), _CONDITION["class"])
    for process in LOCAL:
        for scale in (0.5, 3.0):
            given = cast(Guidance, dataclasses.replace(cast(Any, guidance), scale=scale))
            for parameterization in ("x0", "v"):
                model = GaussianMixtureDenoiser(process, parameterization=parameterization)
                for t in (0.25, 0.75):
                    time = torch.tensor(t, dtype=torch.float64)
                    exact = classifier_free_target(model, z, time, labels, scale, "eps")
                    found = guided_prediction(model, given, _CONDITION, len(z))(z, t, "eps")
                    error = float(((found - exact).abs() / (1 + exact.abs())).max())
                    assert error < 1e-9, (
                        f"at scale {scale:g}, t = {t} under {type(process).__name__} the prediction is {error:.2g} off "
                        "ε_∅ + s (ε_c − ε_∅)"
                    )
                    worst = max(worst, error)
    return f"to {worst:.1g}"


def _pays(guidance: Guidance) -> str:
    """The network is asked for as many states as the branches say, in one call."""
    model = Counting(_model())
    drawn = sample(model, 3, sampler="ddim", steps=5, cond=_CONDITION, guidance=guidance)
    branches = len(guidance.branches(_CONDITION))
    asked = [states // 3 for states in model.batches]
    assert max(asked) <= branches, f"calls of {asked} branches a row, and it names {branches}"
    assert drawn.provenance["nfe"] == sum(asked), (
        f"the provenance says {drawn.provenance['nfe']} evaluations, the network was asked for {sum(asked)}"
    )
    return f"{sum(asked)} in 5 steps"


def _batches(guidance: Guidance) -> str:
    whole, parts = (
        sample(
            _model(), 5, sampler="ddim", steps=5, cond={"class": 0}, guidance=guidance, dtype=torch.float64,
            batch_size=size,
        ).samples
        for size in (5, 2)
    )  # fmt: skip
    error = float((whole - parts).abs().max())
    assert error < 1e-9, f"samples move by {error:.2g} with the batch they are in"
    return f"to {error:.1g}"


def _finite(guidance: Guidance) -> str:
    model = GaussianDenoiser(AngleProcess(), (0.5, -0.2), 0.25)
    drawn = sample(model, 4, sampler="ddim", steps=8, cond=_CONDITION, guidance=guidance).samples
    assert bool(drawn.isfinite().all()), "samples are not finite"
    return f"mean {float(drawn.mean()):.2g}"
