"""Runs a sampler in float64 outside the engine, on data whose prediction is exact at every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.testing.interpreter import interpret
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma.testing.scalar import ScalarMixture, alpha_sigma


def final_states(
    sampler: Sampler, process: Process, data: ScalarMixture, times: Tensor, starts: Sequence[float]
) -> list[float]:
    """Returns the states after the last step, from `starts` at times[0], without noise."""
    if sampler.has_plan:
        tableau = sampler.plan(process, times)
        return [run_plan(tableau, process, data, z) for z in starts]
    z = torch.tensor(starts, dtype=torch.float64).view(-1, 1, 1, 1)
    return (
        run_sample(sampler, data.denoiser(process), times, z, lambda _: torch.zeros_like(z))
        .flatten()
        .tolist()
    )


def run_plan(
    tableau: Tableau, process: Process, data: ScalarMixture, z: float, noise: Sequence[float] | None = None
) -> float:
    """Returns the last state of a plan in plain numbers (K = 1); its clip, no part of the method, is left out."""
    t = torch.tensor([row.t for row in tableau.rows], dtype=torch.float64)
    alpha, sigma = alpha_sigma(process, t)

    def predict(r: int, row: Row, z: float) -> float:
        return data.predict(z, alpha[r], sigma[r], tableau.parameterization)

    return interpret(tableau, predict, z, None if noise is None else noise.__getitem__)[-1]


class ExactPrediction:
    """`trilemma.interfaces.prediction.Prediction` of an exact model, in float64 and at times that are not rounded.

    Attributes:
        evaluations: calls so far.
        seen: the times they asked for.
        changed: whether an answer was written to after it was handed over.
    """

    def __init__(self, denoiser: GaussianMixtureDenoiser) -> None:
        self.denoiser = denoiser
        self.evaluations = 0
        self.seen: list[float] = []
        self.answers: list[tuple[Tensor, Tensor]] = []

    def __call__(self, z: Tensor, t: float | Tensor, parameterization: str = "x0") -> Tensor:
        self.evaluations += 1
        time = torch.as_tensor(t, dtype=torch.float64)
        self.seen += [float(time.max())] if time.numel() else []
        process = self.denoiser.process
        if process.components > 1:
            answer = self.denoiser.predict_stacked(z, time.expand(len(z)), parameterization)
        else:
            if time.dim():
                time = time.view(-1, *(1,) * (z.dim() - 1))
            answer = self.denoiser.predict(z, process.alpha(time), process.sigma(time), parameterization)
        self.answers.append((answer, answer.clone()))
        return answer

    @property
    def changed(self) -> bool:
        return any(not torch.equal(answer, copy) for answer, copy in self.answers)


def run_sample(
    sampler: Sampler,
    denoiser: GaussianMixtureDenoiser,
    times: Tensor,
    z: Tensor,
    noise: Callable[[int], Tensor],
    predict: ExactPrediction | None = None,
) -> Tensor:
    """Returns the result of a sampler's own `sample`."""
    predict = predict or ExactPrediction(denoiser)
    return sampler.sample(cast(Prediction, predict), z, times, noise, lambda step, t, state: None)
