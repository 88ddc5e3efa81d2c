"""Diffusion recovery likelihood: energies that learn from short chains between neighbouring noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, log_density, time_dtype
from trilemma.interfaces.objective import Objective, check_drop, drop_conditions
from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import Grid, spaced_times
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.broadcasting import column
from trilemma.numerics.conversion import convert
from trilemma.numerics.draws import standard_normals
from trilemma_plugins.recovery.levels import Rule, Transition, check_chain, transitions

# h κ, the step times the curvature of the energy, from which on a Langevin chain grows without bound.
EXPLODES = 4.0


@dataclass(frozen=True)
class Recovery(Objective):
    """An energy log p_s(z) whose chains from z̃ at time t end, at s, where the data do.

    On a grid of a few times, t and s its neighbours, z⁺ ~ q(z_s | x₀), z̃ ~ q(z_t | z⁺), and z⁻ the end of the chain of
    K Langevin steps that `recovery-langevin` runs from z̃ (through which no gradient of the weights goes),

        L = (σ_0/σ) E [F(z⁻) − F(z⁺)] + ρ E [F(z⁺)² + F(z⁻)²],      F(z) = s² log p_s(z)

    with s² and σ of the transition. The last term keeps the energies near 0. In an ideal run |F⁺ − F⁻|, which the log
    has as `gap`, stays small; one that grows without bound says that the chains have lost the data, and beyond `most`
    the trainer goes back to the last checkpoint.

    Args:
        steps: number of times of the grid; ignored where it lists them.
        grid: of the times.
        chain: K.
        step: b of the chain's steps, see `recovery-langevin`.
        rule: of the chain's steps.
        noise: c of the chain's steps.
        end: time of the last level; 0 for the earliest at which the network is asked.
        penalty: ρ.
        most: bound of the mean |F⁺ − F⁻|.
        drop: probability of replacing the conditions of an example by the null ones.

    Raises:
        UsageError: for an option out of range, or a model that has no energy.

    References:
        Gao et al., Learning Energy-Based Models by Diffusion Recovery Likelihood, arXiv:2012.08125; Du & Mordatch,
        Implicit Generation and Generalization in Energy-Based Models, arXiv:1903.08689 (the penalty).
    """

    steps: int = 6
    grid: Grid = "trailing"
    chain: int = 30
    step: float = 2e-4
    rule: Rule = "variance"
    noise: float = 1.0
    end: float = 0.0
    penalty: float = 1e-3
    most: float = 10.0
    drop: float | dict[str, float] = 0.0

    def __post_init__(self) -> None:
        check_chain("recovery", self.chain, self.step, self.end, self.rule, self.noise)
        check_drop("recovery", self.drop)
        if not 0 <= self.penalty < math.inf or not self.most > 0:
            raise UsageError(
                f"recovery: penalty={self.penalty!r} or most={self.most!r} is out of range; give a penalty from 0 and "
                "a positive bound"
            )

    def bounds(self) -> Mapping[str, float]:
        """Returns that of the gap."""
        return {"gap": self.most}

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Returns none; refuses a model that has no energy, and chains that explode where the data are points."""
        if not isinstance(model, Denoiser) or model.process.components != 1 or not model.has_energy:
            raise UsageError(
                "recovery trains a denoiser whose answer is the gradient of an energy of one component; set "
                'denoiser.spec = "energy-of"'
            )
        for level in self.levels(model.process):
            # Of data at one point the energy is that of the noise, −‖z − αx₀‖²/2σ².
            sharpest = level.step * level.curvature
            if sharpest >= EXPLODES:
                raise UsageError(
                    f"recovery: step={self.step:g} is {sharpest / EXPLODES:.2g} times as long as a chain bears at "
                    f"t={level.time:g}; give a smaller step, or a later end"
                )
        return {}

    def levels(self, process: Process) -> list[Transition]:
        """Returns the transitions of the grid, from the prior on."""
        steps = self.steps if isinstance(self.grid, str) else len(self.grid)
        return transitions(process, spaced_times(process, steps, self.grid), self.step, self.end, self.rule)

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss, and the mean |F⁺ − F⁻| and F⁺."""
        model, x0, generator = step.denoiser, step.x0, step.generator
        cond = drop_conditions(model, step.cond, self.drop, generator)
        levels = self.levels(model.process)
        chosen = [levels[n] for n in torch.randint(len(levels), (len(x0),), generator=generator).tolist()]
        times = torch.tensor([level.time for level in chosen], dtype=torch.float64)
        with torch.no_grad(), parametrize.cached():
            real, later = _pair(model.process, x0, chosen, times, generator)
            drawn = self._drawn(step, later, chosen, times, cond, generator)
        both = torch.cat([real, drawn])
        twice = {name: torch.cat([value, value]) for name, value in cond.items()}
        with parametrize.cached():
            energy = log_density(model, both, times.repeat(2), twice)
        F_real, F_drawn = (_of([level.scale for level in chosen], both).repeat(2) * energy).chunk(2)
        weight = _of([levels[-1].sigma / level.sigma for level in chosen], both)
        gap = F_drawn - F_real
        loss = (weight * gap).mean() + self.penalty * (F_real.square() + F_drawn.square()).mean()
        return loss, {"gap": gap.detach().abs().mean(), "energy": F_real.detach().mean()}

    def _drawn(
        self,
        step: Step,
        later: Tensor,
        chosen: list[Transition],
        times: Tensor,
        cond: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """z⁻ [B, ...], the end of the chain from z̃."""
        model = step.denoiser
        told = times.to(later.device, time_dtype(later.dtype))
        p, q = convert(model.parameterization, "score", *model.process.alpha_sigma(times))
        h = _host([level.step for level in chosen])
        keep = column(_host([level.keep for level in chosen]) + h / 2 * p, later)
        slope, root = column(h / 2 * q, later), column(self.noise * h.sqrt(), later)
        pull = column(_host([level.pull for level in chosen]), later) * later
        z = column(_host([level.begin for level in chosen]), later) * later
        for _ in range(self.chain):
            answer = step.network(z, told, **cond).to(z.dtype)
            z = keep * z + slope * answer + pull + root * standard_normals(z, generator)
        return z


def _pair(
    process: Process, x0: Tensor, chosen: list[Transition], times: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z⁺ ~ q(z_s | x₀) and z̃ ~ q(z_t | z⁺) [B, ...]; from the prior z̃ is a draw of it."""
    real = process.perturb(x0, times, standard_normals(x0, generator))
    noise = standard_normals(x0, generator)
    later = column(_host([level.a for level in chosen]), x0) * real
    later = later + column(_host([level.sigma for level in chosen]), x0) * noise
    from_prior = _of([level.from_prior for level in chosen], x0)
    return real, torch.lerp(later, process.prior(noise), column(from_prior, x0))


def _host(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _of(values: list[float], like: Tensor) -> Tensor:
    return _host(values).to(like)
