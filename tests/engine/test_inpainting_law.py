"""The law of what is drawn around a region that is given: two pixels of unit variance and correlation ρ = .8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.errors import UsageError
from trilemma.guiding.sums import Sum, composed
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.testing.counting import Counting
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.guidances import guidance_checks
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.guidances.interval import Interval
from trilemma_plugins.guidances.moment_matching import MomentMatching
from trilemma_plugins.processes.exploding import EDM
from trilemma_plugins.solvers.heun import Heun

RHO = 0.8
KNOWN = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
MASK = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
# The mean of so many has the standard error √(.36/20,000) = .004.
MANY = 20_000


class Correlated(Denoiser):
    """x̂₀ = α Σ (α² Σ + σ²)⁻¹ z of x₀ ~ N(0, Σ), Σ = (1, ρ; ρ, 1), in torch operations that differentiate."""

    def __init__(self, process: Process, parameterization: str = "x0") -> None:
        super().__init__(process, parameterization, (1, 1, 2))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        host = t.double().cpu()
        alpha, sigma = (
            entry.view(-1, 1, 1) for entry in (self.process.alpha(host), self.process.sigma(host))
        )
        first, second = z.double()[..., 0], z.double()[..., 1]
        # Along the eigenvectors of Σ, whose eigenvalues are 1 + ρ and 1 − ρ.
        both = (first + second) / 2, (first - second) / 2
        gain = [1 / (alpha.square() * s + sigma.square()) for s in (1 + RHO, 1 - RHO)]
        if self.parameterization == "x0":
            gain = [alpha * s * g for s, g in zip((1 + RHO, 1 - RHO), gain, strict=True)]
        else:
            gain = [sigma * g for g in gain]
        sum_, difference = gain[0] * both[0], gain[1] * both[1]
        return torch.stack([sum_ + difference, sum_ - difference], -1).to(z.dtype)


def law(process: Process, n: int = MANY, parameterization: str = "x0", **options: Any) -> tuple[float, float]:
    """Mean and variance of the free pixel."""
    model = Correlated(process, parameterization)
    drawn = trilemma.sample(model, n, batch_size=n, **{"dtype": torch.float64, **options}).samples[:, 0, 0, 1]
    return float(drawn.mean()), float(drawn.var())


@pytest.mark.parametrize("steps", [20, 100])
def test_replacement_alone_is_far_from_the_conditional_at_any_number_of_steps(steps: int) -> None:
    """As docs/sampling.md says; right are .8 and .36."""
    mean, variance = law(DiscreteVP(), sampler=DDIM(), steps=steps, known=KNOWN, mask=MASK)
    assert mean == pytest.approx(0.35, abs=0.03)
    assert variance == pytest.approx(0.63, abs=0.08)


def test_resampling_reaches_the_conditional_mean() -> None:
    mean, variance = law(
        DiscreteVP(),
        15_000,
        dtype=torch.float32,
        sampler="ddim:eta=1",
        steps=50,
        known=KNOWN,
        mask=MASK,
        resample=20,
    )
    assert mean == pytest.approx(RHO, abs=0.03)
    # Below the right .36, as docs/sampling.md says.
    assert variance == pytest.approx(0.23, abs=0.03)


@pytest.mark.parametrize("process", [DiscreteVP(), ContinuousVP("cosine"), EDM(sigma_max=20.0)], ids=str)
@pytest.mark.parametrize("parameterization", ["x0", "eps"])
def test_moment_matching_has_the_conditional_law_of_gaussian_data(
    process: Process, parameterization: str
) -> None:
    guidance = MomentMatching(known=KNOWN, mask=MASK)
    sampler = DDIM(grid="karras") if isinstance(process, EDM) else DDIM()
    mean, variance = law(
        process, sampler=sampler, steps=60, guidance=guidance, parameterization=parameterization
    )
    assert mean == pytest.approx(RHO, abs=0.03)
    assert variance == pytest.approx(0.36, abs=0.04)


def test_moment_matching_runs_in_solvers_with_stages_and_beside_a_known_region() -> None:
    guidance = MomentMatching(known=KNOWN, mask=MASK)
    for options in ({}, {"known": KNOWN, "mask": MASK}):
        mean, variance = law(
            DiscreteVP(), 20_000, sampler=Heun(grid="lambda"), steps=20, guidance=guidance, **options
        )
        assert mean == pytest.approx(RHO, abs=0.03)
        assert variance == pytest.approx(0.36, abs=0.04)


def test_moment_matching_predicts_the_exact_conditional_mean() -> None:
    """x̂₀ + Σ Mᵀ (M Σ Mᵀ)⁻¹ (y − M x̂₀) with Cov[x₀ | z] = Σ = σ²/α ∂x̂₀/∂z: E[x₀ | z, y], with noise on y too."""
    process, t = DiscreteVP(), 0.4
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = process.alpha(time), process.sigma(time)
    model, z = (
        Correlated(process),
        torch.tensor([[0.3, -1.1], [2.0, 0.7]], dtype=torch.float64).view(2, 1, 1, 2),
    )
    for spread in (0.0, 0.5):
        guidance = MomentMatching(known=KNOWN, mask=MASK, sigma=spread)
        bound = guidance.bind(model, {}, torch.tensor([1.0, 0.0], dtype=torch.float64))
        found = bound.combine(z, t, [model(z, time.expand(2))], bound.targets(torch.arange(2), {})).flatten(1)
        rows = torch.stack([alpha * torch.eye(2)[0], alpha * torch.eye(2)[1], torch.eye(2)[0]]).double()
        cov = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
        noise = torch.diag(
            torch.stack([sigma**2, sigma**2, torch.tensor(spread**2 + 1e-13, dtype=torch.float64)])
        )
        seen = torch.cat([z.flatten(1), torch.ones(2, 1, dtype=torch.float64)], 1)
        exact = torch.linalg.solve(rows @ cov @ rows.T + noise, seen.T).T @ rows @ cov
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def test_what_is_paid_is_said() -> None:
    model = Counting(Correlated(DiscreteVP()))
    drawn = trilemma.sample(model, sampler=DDIM(eta=1.0), steps=6, known=KNOWN, mask=MASK, resample=3, jump=2)
    assert drawn.provenance["nfe"] == len(model.times) == 18
    assert drawn.provenance["known"]["resample"] == 3
    assert drawn.provenance["known"]["jump"] == 2
    assert torch.equal(drawn.samples * MASK, (KNOWN * MASK).float())
    model = Counting(Correlated(DiscreteVP()))
    guidance = MomentMatching(known=KNOWN, mask=MASK)
    assert trilemma.sample(model, sampler=DDIM(), steps=6, guidance=guidance).provenance["nfe"] == 12
    assert len(model.times) == 12


def test_one_pass_is_no_resampling_bit_for_bit() -> None:
    given: dict[str, Any] = {"sampler": DDIM(eta=1.0), "steps": 7, "known": KNOWN, "mask": MASK}
    model = Correlated(DiscreteVP())
    plain, one = (
        trilemma.sample(model, 3, **given, **more).samples for more in ({}, {"resample": 1, "jump": 3})
    )
    assert torch.equal(plain, one)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resample": 0, "known": KNOWN, "mask": MASK}, "resample=0"),
        ({"jump": 1.5, "known": KNOWN, "mask": MASK}, "jump=1.5"),
        ({"resample": True, "known": KNOWN, "mask": MASK}, "resample=True"),
        ({"resample": 4}, "give known= and mask="),
        ({"resample": 4, "known": KNOWN, "mask": MASK, "sampler": Heun()}, "stages or a history"),
    ],
)
def test_impossible_resampling_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        trilemma.sample(Correlated(DiscreteVP()), steps=4, **options)


def test_moment_matching_passes_the_kit() -> None:
    """Under the condition that the kit's model has; without options the kit can guide nothing and skips."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    failed = []
    for name, check in guidance_checks(MomentMatching(known=one, mask=one)):
        try:
            check()
        except AssertionError as error:
            failed.append(f"{name}: {error}")
    assert not failed, failed


def test_it_adds_up_with_other_guidance_and_pays_only_where_it_acts() -> None:
    model = Counting(GaussianDenoiser(DiscreteVP(), (0.5, -0.2), 0.25))
    known = torch.full((1, 1, 1, 1), 0.3)
    half = composed([MomentMatching(known=known, mask=torch.ones(1, 1, 1, 1)), Interval(hi=0.5)])
    drawn = trilemma.sample(model, 2, sampler=DDIM(), steps=10, guidance=half, cond={"class": 0})
    assert drawn.provenance["nfe"] == sum(size // 2 for size in model.batches) == 15
    assert torch.allclose(drawn.samples, torch.full((2, 1, 1, 1), 0.3), atol=1e-4)
    together = Sum((CFG(2.0), MomentMatching(known=known, mask=torch.ones(1, 1, 1, 1))))
    model.batches.clear()
    drawn = trilemma.sample(model, 2, sampler=DDIM(), steps=10, guidance=together, cond={"class": 0})
    assert drawn.provenance["nfe"] == sum(size // 2 for size in model.batches) == 30


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs what is known"),
        ({"known": KNOWN}, "mask= is missing"),
        ({"known": KNOWN[..., :1], "mask": MASK}, "known is"),
        ({"known": KNOWN, "mask": MASK / 2}, "between 0 and 1"),
    ],
)
def test_what_moment_matching_cannot_use_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        trilemma.sample(Correlated(DiscreteVP()), sampler=DDIM(), steps=4, guidance=MomentMatching(**options))


@pytest.mark.parametrize("spec", ["sigma=-1", "sigma=nan", "iterations=0", "iterations=1.5"])
def test_options_of_moment_matching_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="moment-matching"):
        trilemma.guidance(f"moment-matching:{spec}")
