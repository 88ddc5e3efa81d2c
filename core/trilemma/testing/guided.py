"""Exact targets of guidance: what it should predict on exact models, and what a guidance predicts there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trilemma.engine.evaluation import Evaluation
from trilemma.engine.noise import KeyedNoise
from trilemma.engine.prediction import GuidedPrediction
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance
from trilemma.numerics.conversion import convert
from trilemma.testing.mixture import GaussianMixtureDenoiser


def guided_prediction(
    model: Denoiser, guidance: Guidance, cond: Mapping[str, Any], count: int
) -> GuidedPrediction:
    """Returns the function (z [count, ...], t) → prediction that samplers see of a model under guidance, in float64."""
    indices = torch.arange(count)
    bound = guidance.bind(model, cond, torch.tensor([1.0, 0.0], dtype=torch.float64))
    told = [model.prepare(branch.cond).take(indices) for branch in bound.branches]
    joined = {name: torch.cat([branch[name] for branch in told]) for name in told[0]}
    shape = (model.process.components * model.shape[0], *model.shape[1:])
    evaluation = Evaluation(bound, count, shape, torch.float64, torch.float64, torch.device("cpu"))
    return GuidedPrediction(
        evaluation,
        joined,
        bound.targets(indices, told[0]),
        torch.float64,
        lambda number: evaluation.draw(KeyedNoise(), indices, number),
    )


def classifier_free_target(
    model: GaussianMixtureDenoiser,
    z: Tensor,
    t: Tensor,
    labels: Tensor,
    scale: float,
    parameterization: str = "eps",
) -> Tensor:
    """Returns ε_∅ + s (ε_c − ε_∅), exactly; the same in every parameterization, as each is affine in ε (2207.12598).

    Unless s is 0 or 1, no process has the law p_∅^(1−s) p_c^s, noised: the target is a prediction, not a law.

    Args:
        z: states [B, ...], float64.
        t: times [B] or single.
        labels: c [B].
        scale: s.
    """
    alpha, sigma = model.process.alpha(t.double()), model.process.sigma(t.double())
    null, given = (model.predict(z, alpha, sigma, parameterization, entry) for entry in (None, labels))
    return null + scale * (given - null)


def classifier_target(
    model: GaussianMixtureDenoiser,
    z: Tensor,
    t: Tensor,
    labels: Tensor,
    scale: float,
    parameterization: str = "eps",
) -> Tensor:
    """Returns ε_∅ − s σ ∇_z log p(c | z, t) with the classifier that knows the mixture, exactly (2105.05233).

    At s = 1 it is ε_c, as ∇ log p(z) + ∇ log p(c | z) = ∇ log p(z | c). Arguments as above.
    """
    alpha, sigma = model.process.alpha(t.double()), model.process.sigma(t.double())
    with torch.inference_mode(False), torch.enable_grad():
        place = z.detach().clone().requires_grad_()
        chosen = model.class_log_probabilities(place, t)[torch.arange(len(z)), labels]
        (gradient,) = torch.autograd.grad(chosen.sum(), place)
    column = (-1,) + (1,) * len(model.shape)
    alpha, sigma = alpha.reshape(column), sigma.reshape(column)
    eps = model.predict(z, alpha, sigma, "eps") - scale * sigma * gradient
    p, q = convert("eps", parameterization, alpha, sigma)
    return p * z + q * eps
