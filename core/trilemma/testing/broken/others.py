"""A process, guidances, a denoiser and a kernel backend with one fault each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trilemma.guiding.modifiers import Modified
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Guidance, towards_condition
from trilemma.interfaces.process import Process
from trilemma.ops import keyed_normal
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.local import StraightProcess
from trilemma.testing.mixture import GaussianMixtureDenoiser


@dataclass(frozen=True)
class LoudTransition(AngleProcess):
    """Its transitions add too much noise."""

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        psi, Q = super().transition(s, t)
        return psi, 1.01 * Q


@dataclass(frozen=True)
class LateInverse(StraightProcess):
    """Its inverse of log SNR is a little late."""

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return super().time_of_log_snr(log_snr) + 1e-3


@dataclass(frozen=True)
class WrongPrior(StraightProcess):
    """Starts with twice the noise."""

    def prior(self, noise: Tensor) -> Tensor:
        return 2 * noise


@dataclass(frozen=True)
class PaperScale(Guidance):
    """Takes the paper's w = s − 1 for the scale s."""

    scale: float = 2.0

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        return towards_condition(model, cond, self.weights)

    def weights(self, t: float) -> tuple[float, ...]:
        return (1 + self.scale, -self.scale)


@dataclass(frozen=True)
class Unbalanced(PaperScale):
    """Its weights do not sum to 1."""

    def weights(self, t: float) -> tuple[float, ...]:
        return (self.scale, -self.scale)


@dataclass(frozen=True)
class HalfTheScale(PaperScale):
    """Goes half as far as its scale says; at 1 there is nothing to see."""

    def weights(self, t: float) -> tuple[float, ...]:
        return (1 + (self.scale - 1) / 2, (1 - self.scale) / 2)


@dataclass(frozen=True)
class WholeBatch(PaperScale):
    """Combines by the largest prediction of the batch, which need not be there."""

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        return _ByTheLargest(super().bind(model, cond, times), self.scale)


class _ByTheLargest(Modified):
    def __init__(self, guidance: BoundGuidance, scale: float) -> None:
        super().__init__(guidance)
        self.scale, self.linear = scale, False

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        given, null = predictions
        return given + (self.scale - 1) * (given - null) / (1 + 0 * given.abs().max())


@dataclass(frozen=True)
class NeedsATime(AngleProcess):
    """Asks whether the first of its times is the data."""

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t if float(t.reshape(-1)[0]) else t.clamp_min(1e-9)
        return super().moments(t)


class LooksAtTheFirst(GaussianMixtureDenoiser):
    """Reads the first state of the batch, which need not be there."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        z[0].isnan()
        return super().forward(z, t, **cond)


class DecidesByValue(GaussianMixtureDenoiser):
    """Asks the state what to do, and does not say that it does."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        if float(z.abs().sum()) < 0:
            return z
        return super().forward(z, t, **cond)


class SwallowsNaN(GaussianMixtureDenoiser):
    """Puts zeros in the place of NaN."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return super().forward(z.nan_to_num(), t, **cond)


class ReadsMemory(GaussianMixtureDenoiser):
    """Takes the state's memory for the state."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        packed = z.as_strided(z.shape, torch.empty(z.shape).stride())
        return super().forward(packed, t, **cond)


class WritesToItsState(GaussianMixtureDenoiser):
    """Scales the state it is given."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return super().forward(z.mul_(0.5), t, **cond)


class OnlyFloat32(GaussianMixtureDenoiser):
    """Has a weight that no conversion reaches."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.kept = [torch.ones(1, 1)]

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        flat = super().forward(z, t, **cond).flatten(1)
        return (flat @ self.kept[0]).view_as(z)


class BatchMean(GaussianMixtureDenoiser):
    """Mixes the mean of the batch into its answers."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answer = super().forward(z, t, **cond)
        return answer + 0.1 * answer.mean(0)


class WideAnswers(GaussianMixtureDenoiser):
    """Answers in float64 whatever it is asked in."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return super().forward(z, t, **cond).double()


class WrongNormals:
    """A kernel backend whose normals are too wide."""

    @staticmethod
    def _wide(out: Tensor, *arguments: Any, **keywords: Any) -> None:
        keyed_normal(out, *arguments, **keywords)
        out.mul_(1.01)

    operators: ClassVar[dict[str, Any]] = {"keyed_normal": _wide}
