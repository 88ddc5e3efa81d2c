"""Starting from images, keeping a region of them, and watching the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine.noise import InjectedNoise, keyed_normal
from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.numerics.normal import PRIOR
from trilemma.registry.building import samplers_of_components
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM
from trilemma_plugins.processes.exploding import EDM
from trilemma_plugins.processes.flow import Flow

SHAPE = (1, 2, 2)
WIDE = {"dtype": torch.float64}
MASK = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
PROCESSES = [DiscreteVP(), EDM(sigma_max=5.0), Flow()]


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method in ẑ = z/α over σ̂ = σ/α, dẑ/dσ̂ = ε̂: two rows a step, the last step Euler's."""

    order = 2
    deterministic = True

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = (entry.tolist() for entry in process.alpha_sigma(times))
        rows = []
        for t, s, a_t, a_s, n_t, n_s in zip(
            times.tolist(), times[1:].tolist(), alpha, alpha[1:], sigma, sigma[1:], strict=False
        ):
            h = a_s * (n_s / a_s - n_t / a_t)
            rows.append(Row(t, a_s / a_t, ((0, h),)))
            if s > 0:
                rows.append(Row(s, a_s / a_t, ((0, h / 2), (1, h / 2)), base=1))
        return Tableau(tuple(rows), "eps")


@dataclass(frozen=True)
class TwoStep(Sampler):
    """Adams–Bashforth of two steps in σ̂ = σ/α, beginning with Euler's; z/α is kept."""

    order = 2
    deterministic = True

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = process.alpha_sigma(times)
        level, falls = (sigma / alpha).tolist(), (sigma / alpha).diff().tolist()
        rows = []
        for i, (t, h) in enumerate(zip(times.tolist(), falls, strict=False)):
            a_t, a_s = float(alpha[i]), float(alpha[i + 1])
            if i == 0:
                B: tuple[tuple[int, float], ...] = ((0, a_s * h),)
            else:
                r = h / (2 * (level[i] - level[i - 1]))
                B = ((0, a_s * h * (1 + r)), (1, -a_s * h * r))
            rows.append(Row(t, a_s / a_t, B))
        return Tableau(tuple(rows), "eps")


def images(n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2


def model(process: Process, parameterization: str = "v") -> GaussianDenoiser:
    return GaussianDenoiser(process, 0.3, 0.25, parameterization, SHAPE)


# --- starting from images


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_first_state_is_the_noised_image(process: Process) -> None:
    x = images(2)
    drawn = trilemma.sample(
        model(process), 4, start=x, strength=0.63, steps=10, seed=5, trajectory=True, **WIDE
    )
    assert drawn.trajectory is not None
    assert drawn.times is not None
    assert drawn.times[0] == pytest.approx(0.6)
    noise = keyed_normal(5, torch.arange(4), 1, SHAPE, PRIOR, torch.float64)
    alpha, sigma = process.alpha_sigma(torch.tensor([drawn.times[0]], dtype=torch.float64))
    expected = alpha * x[[0, 1, 0, 1]] + sigma * noise
    torch.testing.assert_close(drawn.trajectory[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), Heun()], ids=str)
def test_only_the_steps_from_there_are_run_and_paid(sampler: Sampler) -> None:
    seen: list[tuple[int, int, float]] = []
    drawn = trilemma.sample(
        model(DiscreteVP()),
        sampler=sampler,
        start=images(3),
        strength=0.5,
        steps=10,
        callback=lambda row, rows, t, state: seen.append((row, rows, t)),
    )
    assert len(drawn.samples) == 3
    assert drawn.provenance["nfe"] == sampler.nfe(5) == len(seen) == seen[-1][1]
    assert drawn.provenance["steps"] == 10
    assert drawn.provenance["start"]["time"] == 0.5
    assert drawn.provenance["start"]["strength"] == 0.5


def test_the_law_of_what_a_little_noise_gives_back() -> None:
    """With the exact flow of N(m, s²) an image x noised to t comes back as N(m + s(αx + … − αm)/d, (s σ/d)²)."""
    process, x = DiscreteVP(), torch.full((1, *SHAPE), 0.8, dtype=torch.float64)
    drawn = trilemma.sample(model(process), 4000, start=x, strength=0.3, steps=300, batch_size=4000, **WIDE)
    alpha, sigma = (entry.item() for entry in process.alpha_sigma(torch.tensor([0.3], dtype=torch.float64)))
    scale = 0.5 / (alpha**2 * 0.25 + sigma**2) ** 0.5
    values = drawn.samples.flatten()
    deviation = scale * sigma
    assert values.mean().item() == pytest.approx(
        0.3 + scale * alpha * 0.5, abs=5 * deviation / 16000**0.5 + 0.003
    )
    assert values.std().item() == pytest.approx(deviation, rel=0.03)


def test_full_strength_on_an_exploding_process_is_not_the_prior_alone() -> None:
    """α = 1: the image is still there under the noise."""
    process, x = EDM(sigma_max=5.0), torch.full((1, *SHAPE), 2.0, dtype=torch.float64)
    same = InjectedNoise(prior=images(1))
    first, prior = (
        trilemma.sample(model(process), 1, steps=2, trajectory=True, noise=same, **WIDE, **options).trajectory
        for options in ({"start": x, "strength": 1.0}, {})
    )
    torch.testing.assert_close(first[0] - prior[0], x)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_grid_that_begins_below_the_prior_begins_at_its_level(process: Process) -> None:
    drawn = trilemma.sample(
        model(process), 500, sampler=DDIM(grid=(0.5, 0.2)), steps=2, trajectory=True, batch_size=500, **WIDE
    )
    assert drawn.trajectory is not None
    alpha, sigma = process.alpha_sigma(torch.tensor([0.5], dtype=torch.float64))
    unit = (alpha.square() + sigma.square()).sqrt().item()
    assert drawn.trajectory[0].std().item() == pytest.approx(unit, rel=0.1)


def test_bits_do_not_depend_on_the_batches() -> None:
    x, known = images(3), images(2)
    settings: dict[str, Any] = {
        "start": x,
        "known": known,
        "mask": MASK,
        "sampler": DDPM(),
        "steps": 8,
        "trajectory": True,
    }
    whole = trilemma.sample(model(DiscreteVP()), 7, **settings)
    parts = trilemma.sample(model(DiscreteVP()), 7, batch_size=3, **settings)
    fixed = trilemma.sample(model(DiscreteVP()), 7, deterministic=True, **settings)
    some = trilemma.sample(model(DiscreteVP()), indices=[5, 2], **settings)
    for other in (parts, fixed):
        assert torch.equal(whole.samples, other.samples)
        assert torch.equal(whole.trajectory, other.trajectory)
    assert torch.equal(whole.samples[[5, 2]], some.samples)


# --- inpainting


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), Heun(), TwoStep()], ids=lambda s: type(s).__name__)
def test_the_known_region_is_kept_and_follows_its_marginal(process: Process, sampler: Sampler) -> None:
    if isinstance(process, Flow) and isinstance(sampler, Heun | TwoStep):
        pytest.skip("these divide by α")
    x = images(3)
    drawn = trilemma.sample(
        model(process), 3, sampler=sampler, known=x, mask=MASK, steps=6, seed=2, trajectory=True, **WIDE
    )
    assert torch.equal(drawn.samples * MASK, x * MASK)
    assert drawn.trajectory is not None
    assert drawn.times is not None
    noise = keyed_normal(2, torch.arange(3), 1, SHAPE, PRIOR, torch.float64)
    alpha, sigma = process.alpha_sigma(torch.tensor(drawn.times, dtype=torch.float64))
    for state, a, s in zip(drawn.trajectory, alpha, sigma, strict=True):
        torch.testing.assert_close(state * MASK, (a * x + s * noise) * MASK, rtol=1e-12, atol=1e-12)


def test_what_is_not_known_is_drawn_as_without_a_mask() -> None:
    """The pixels of the Gaussian model know nothing of each other."""
    plain = trilemma.sample(model(DiscreteVP()), 3, sampler=DDPM(), steps=6, **WIDE)
    drawn = trilemma.sample(
        model(DiscreteVP()), 3, sampler=DDPM(), known=images(3), mask=MASK, steps=6, **WIDE
    )
    assert torch.equal(drawn.samples * (1 - MASK), plain.samples * (1 - MASK))


def test_a_mask_of_nothing_and_of_everything() -> None:
    x = images(2)
    plain = trilemma.sample(model(DiscreteVP()), 2, steps=5, **WIDE).samples
    none = trilemma.sample(
        model(DiscreteVP()), 2, known=x, mask=torch.zeros(1, 1, 2, 2), steps=5, **WIDE
    ).samples
    everything = trilemma.sample(
        model(DiscreteVP()), 2, known=x, mask=torch.ones(1, 1, 2, 2), steps=5, **WIDE
    ).samples
    assert torch.equal(none, plain)
    assert torch.equal(everything, x)


# --- the way


def test_a_trajectory_begins_at_the_prior_and_ends_at_the_samples() -> None:
    states: list[Tensor] = []
    drawn = trilemma.sample(
        model(DiscreteVP()),
        5,
        sampler=Heun(),
        steps=4,
        trajectory=True,
        batch_size=5,
        callback=lambda row, rows, t, state: states.append(state.clone()),
    )
    assert drawn.trajectory is not None
    assert drawn.trajectory.shape == (8, 5, *SHAPE)
    assert drawn.times == (1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0)
    assert torch.equal(drawn.trajectory[1:], torch.stack(states))
    assert torch.equal(drawn.trajectory[-1], drawn.samples)
    assert torch.equal(drawn.trajectory[0], keyed_normal(0, torch.arange(5), 0, SHAPE, PRIOR))


def test_chunks_hand_out_their_own_part_of_the_way() -> None:
    chunks = trilemma.sample_chunks(model(DiscreteVP()), 5, steps=3, batch_size=2, trajectory=True)
    for indices, samples in chunks:
        assert chunks.trajectory is not None
        assert chunks.trajectory.shape == (4, len(indices), *SHAPE)
        assert torch.equal(chunks.trajectory[-1], samples)


class OfItsOwn(Sampler):
    """Euler's steps in v, written without a plan."""

    order = 1
    deterministic = True

    def sample(
        self, predict: Any, z: Tensor, times: Tensor, noise: Any, report: Callable[..., None]
    ) -> Tensor:
        for step, (t, s) in enumerate(zip(times.tolist(), times[1:].tolist(), strict=False)):
            z = z + (s - t) * predict(z, t, "v")
            report(step + 1, s, z)
        return z


def test_a_sampler_without_a_plan_starts_from_images_and_shows_its_way() -> None:
    drawn = trilemma.sample(
        model(DiscreteVP()), sampler=OfItsOwn(), steps=10, start=images(2), strength=0.4, trajectory=True
    )
    assert drawn.times == pytest.approx((0.4, 0.3, 0.2, 0.1, 0.0))
    assert torch.equal(drawn.trajectory[-1], drawn.samples)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.5}, "give start="),
        ({"start": images(1), "strength": 0.0}, "strength=0.0"),
        ({"start": images(1), "strength": True}, "strength=True"),
        ({"start": images(1), "latent": images(1)}, "latent= and start="),
        ({"start": images(1, (2, 2, 2))}, "expected floating-point images"),
        ({"start": images(1) / 0}, "not finite"),
        ({"known": images(1)}, "mask= is missing"),
        ({"mask": MASK}, "known= is missing"),
        ({"known": images(1), "mask": MASK / 2}, "between 0 and 1"),
        ({"known": images(1), "mask": MASK[:, :, :1]}, "mask is"),
        ({"known": images(1), "mask": MASK, "sampler": OfItsOwn()}, "steps of its own"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        trilemma.sample(model(DiscreteVP()), 1, steps=4, **options)
    assert "\n" not in str(error.value)


def test_injected_noise_is_what_images_are_noised_with() -> None:
    x, noise = images(2), images(2) * 3
    drawn = trilemma.sample(
        model(DiscreteVP()),
        start=x,
        strength=0.5,
        steps=4,
        noise=InjectedNoise(prior=noise),
        trajectory=True,
        **WIDE,
    )
    alpha, sigma = DiscreteVP().alpha_sigma(torch.tensor([0.5], dtype=torch.float64))
    assert drawn.trajectory is not None
    torch.testing.assert_close(drawn.trajectory[0], alpha * x + sigma * noise, rtol=1e-12, atol=1e-12)


# --- inversion of any deterministic plan


@pytest.mark.parametrize("sampler", [Heun(), TwoStep()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("process", [DiscreteVP(), EDM(sigma_max=5.0)], ids=str)
def test_there_and_back_converges_at_the_samplers_order(process: Process, sampler: Sampler) -> None:
    x = images(3)
    errors = []
    for steps in (40, 80, 160):
        settings: dict[str, Any] = {"sampler": sampler, "steps": steps, **WIDE}
        latent = trilemma.invert(model(process), x, refine=8, **settings)
        back = trilemma.sample(model(process), latent=latent.samples, **settings).samples
        errors.append((back - x).abs().max().item())
    assert errors[-1] < 0.02
    assert errors[1] / errors[2] > 2 ** (sampler.order - 0.3)


def test_the_latent_of_a_second_order_sampler_is_nearer_to_the_flows() -> None:
    process, x = EDM(sigma_max=5.0), images(3)
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = process.alpha(one), process.sigma(one)
    exact = alpha * 0.3 + (x - 0.3) / 0.5 * (alpha.square() * 0.25 + sigma.square()).sqrt()
    first, second = (
        (trilemma.invert(model(process), x, sampler=sampler, steps=50, **WIDE).samples - exact).abs().max()
        for sampler in (DDIM(), TwoStep())
    )
    assert second < first / 4


def test_an_inversion_in_two_parts_counts_as_one() -> None:
    seen: list[tuple[int, int, float]] = []
    drawn = trilemma.invert(
        model(DiscreteVP()),
        images(2),
        sampler=Heun(),
        steps=4,
        refine=0,
        callback=lambda row, rows, t, state: seen.append((row, rows, t)),
    )
    assert [row for row, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {rows for _, rows, _ in seen} == {len(seen)} == {drawn.provenance["nfe"]}
    assert seen[-1][2] == 1.0
    assert drawn.provenance["sampler"].startswith("Heun") or "heun" in drawn.provenance["sampler"].lower()


def test_inversion_reaches_the_end_of_a_flow() -> None:
    """Nothing of the data is left at t = 1: the last step up is of first order in x̂₀."""
    x = images(2)
    for sampler in (DDIM(), TwoStepInData()):
        errors = []
        for steps in (20, 40):
            settings: dict[str, Any] = {"sampler": sampler, "steps": steps, **WIDE}
            latent = trilemma.invert(model(Flow(), "flow"), x, refine=8, **settings).samples
            errors.append(
                (trilemma.sample(model(Flow(), "flow"), latent=latent, **settings).samples - x).abs().max()
            )
        assert errors[1] < max(1e-8, errors[0] / 1.5)


@dataclass(frozen=True)
class TwoStepInData(Sampler):
    """DPM-Solver++ 2M: exponential, two steps of x̂₀ in λ/2; first order where λ is infinite."""

    order = 2
    deterministic = True

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = (entry.tolist() for entry in process.alpha_sigma(times))
        half = torch.log(torch.tensor(alpha)) - torch.log(torch.tensor(sigma))
        rows = []
        for i, t in enumerate(times.tolist()[:-1]):
            ratio = sigma[i + 1] / sigma[i]
            weight = alpha[i + 1] - alpha[i] * ratio
            B: tuple[tuple[int, float], ...] = ((0, weight),)
            if i and bool(half[i - 1 : i + 2].isfinite().all()):
                r = float((half[i + 1] - half[i]) / (half[i] - half[i - 1]))
                B = ((0, weight * (1 + r / 2)), (1, -weight * r / 2))
            rows.append(Row(t, ratio, B))
        return Tableau(tuple(rows), "x0")


@pytest.mark.parametrize("name", samplers_of_components(1))
@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_every_registered_sampler_starts_keeps_and_inverts(name: str, process: Process) -> None:
    sampler, x = trilemma.sampler(name), images(2)
    if not sampler.from_pure_noise and float(process.alpha(torch.ones((), dtype=torch.float64))) == 0:
        pytest.skip("it does not claim to start from pure noise")
    net = model(process, "x0")
    begun = trilemma.sample(net, sampler=sampler, start=x, strength=0.5, steps=8, trajectory=True, **WIDE)
    assert begun.times is not None
    assert begun.times[0] <= 0.5
    assert torch.equal(begun.trajectory[-1], begun.samples)
    if not sampler.has_plan:
        return
    kept = trilemma.sample(net, 2, sampler=sampler, known=x, mask=MASK, steps=8, **WIDE)
    assert torch.equal(kept.samples * MASK, x * MASK)
    if not sampler.deterministic:
        with pytest.raises(UsageError, match="deterministic"):
            trilemma.invert(net, x, sampler=sampler, steps=8)
        return
    latent = trilemma.invert(net, x, sampler=sampler, steps=60, refine=8, **WIDE).samples
    back = trilemma.sample(net, latent=latent, sampler=sampler, steps=60, **WIDE).samples
    assert (back - x).abs().max() < 0.05
