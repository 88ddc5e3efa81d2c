"""Checks of every guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from trilemma.engine.drawing import sample
from trilemma.errors import UsageError
from trilemma.guiding.modifiers import Modifier
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Guidance, towards_condition
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
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    if isinstance(guidance, Modifier) and guidance.modifies_nothing:
        guidance = dataclasses.replace(guidance, guidance=TowardsClass())
    yield "branches name the model's conditions", lambda: _guiding(guidance, _branches)
    if _is_linear(guidance):
        yield "weights are one a branch and sum to 1", lambda: _guiding(guidance, _weights)
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

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        return towards_condition(model, cond, (3.0, -2.0))


def _bound(guidance: Guidance) -> BoundGuidance:
    """A guidance of the exact model."""
    return guidance.bind(_model(), dict(_CONDITION), torch.linspace(1, 0, 9, dtype=torch.float64))


def _guiding(guidance: Guidance, check: Callable[[Guidance], str]) -> str:
    """A check on the exact model, where the guidance can guide it."""
    try:
        _bound(guidance)
    except UsageError as error:
        raise Skipped(f"the exact model cannot be guided: {error}") from error
    return check(guidance)


def _is_linear(guidance: Guidance) -> bool:
    try:
        return _bound(guidance).linear
    except UsageError:
        return False


def _branches(guidance: Guidance) -> str:
    given = dict(_CONDITION)
    bound = guidance.bind(_model(), given, torch.linspace(1, 0, 9, dtype=torch.float64))
    assert given == _CONDITION, "bind changes the conditions it is given"
    count = len(bound.branches)
    assert 1 <= count <= 4, f"{count} branches; the engine runs 1 to 4"
    for branch in bound.branches:
        assert set(branch.cond) <= set(_CONDITION), (
            f"a branch names {sorted(set(branch.cond) - set(_CONDITION))}, unknown to the model"
        )
    return f"{count} in one batch"


def _weights(guidance: Guidance) -> str:
    bound = _bound(guidance)
    count = len(bound.branches)
    for t in (0.1, 0.5, 1.0):
        weights = bound.weights(t)
        assert len(weights) == count, f"{len(weights)} weights for {count} branches"
        assert abs(sum(weights) - 1) < 1e-12, f"weights at t = {t} sum to {sum(weights):g}, not to 1"
    return f"{bound.weights(0.5)} at t = 0.5"


def _agreement(guidance: Guidance) -> str:
    """Checks that guidance changes nothing where the class changes nothing."""
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
    return f"{len(_bound(one).branches)} branch(es)"


def _is_classifier_free(guidance: Guidance) -> bool:
    """Returns whether it promises ε_∅ + s (ε_c − ε_∅): one scale at all times, neutral at 1, one condition."""
    if not hasattr(guidance, "scale") or guidance.neutral_scale != 1 or guidance.compound:
        return False
    try:
        bound = _bound(guidance)
    except UsageError:
        return False
    told = [dict(branch.cond) for branch in bound.branches if branch.network is bound.model]
    return (
        bound.linear
        and bound.weights(0.25) == bound.weights(0.75)
        and len(told) == len(bound.branches)
        and told in ([_CONDITION, {"class": None}], [{"class": None}, _CONDITION])
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
    branches = len(_bound(guidance).branches)
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
