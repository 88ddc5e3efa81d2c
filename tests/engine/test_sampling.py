"""`trilemma.sample`: one sample is one sample, however it is asked for; and what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import trilemma
from trilemma.engine.drawing import sample_chunks
from trilemma.engine.noise import InjectedNoise, KeyedNoise
from trilemma.errors import TrilemmaError, UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.sampler import Sampler
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import ContinuousVP, DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM

GAUSSIAN = GaussianDenoiser(DiscreteVP(), [0.5, -0.3, 0.0], shape=(1, 3, 3))
SETTINGS: dict[str, Any] = {
    "sampler": DDIM(eta=0.7),
    "steps": 6,
    "guidance": CFG(2.0),
    "cond": {"class": [0, 1]},
}


# Chunking


@pytest.fixture(scope="module")
def whole() -> Tensor:
    return trilemma.sample(GAUSSIAN, 11, seed=3, **SETTINGS).samples


@settings(max_examples=20, deadline=None)
@given(
    batch_size=st.integers(1, 12),
    indices=st.lists(st.integers(0, 10), min_size=1, max_size=11, unique=True),
    deterministic=st.booleans(),
)
def test_a_sample_is_the_same_bits_in_any_chunking(
    whole: Tensor, batch_size: int, indices: list[int], deterministic: bool
) -> None:
    """Noise and engine steps depend on (seed, sample) alone: the Gaussian's network works element by element."""
    part = trilemma.sample(
        GAUSSIAN, indices=indices, seed=3, batch_size=batch_size, deterministic=deterministic, **SETTINGS
    ).samples
    assert torch.equal(part, whole[indices])


def test_samples_of_a_convolution_agree_to_its_rounding_in_any_chunking(convolution: Denoiser) -> None:
    whole = trilemma.sample(convolution, 9, **SETTINGS).samples
    for batch_size in (1, 2, 4):
        again = trilemma.sample(convolution, 9, batch_size=batch_size, **SETTINGS).samples
        assert (again - whole).abs().max() <= 1e-4


@settings(max_examples=5, deadline=None)
@given(indices=st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_deterministic_samples_of_a_convolution_are_the_same_bits(
    convolution: Denoiser, indices: list[int]
) -> None:
    together = trilemma.sample(convolution, indices=indices, deterministic=True, **SETTINGS).samples
    for position, index in enumerate(indices):
        alone = trilemma.sample(convolution, indices=[index], deterministic=True, **SETTINGS).samples
        assert torch.equal(alone[0], together[position])


def test_deterministic_puts_sample_i_in_row_i_mod_64_of_one_shape(convolution: Denoiser) -> None:
    seen: list[Tensor] = []
    hook = convolution.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    indices = [3, 70, 5, 140]
    try:
        trilemma.sample(
            convolution, indices=indices, deterministic=True, batch_size=2, **{**SETTINGS, "steps": 1}
        )
    finally:
        hook.remove()
    assert [len(state) for state in seen] == [128] * 3  # 64 samples in two branches, for each of three blocks
    prior = KeyedNoise(0).normal(torch.tensor(indices), 0, convolution.shape, stream=0)
    for index, noise in zip(indices, prior, strict=True):
        state = seen[index // 64]
        assert torch.equal(state[index % 64], noise)
        assert torch.equal(state[64 + index % 64], noise)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_run_is_resumed_by_the_indices_that_are_missing(convolution: Denoiser, deterministic: bool) -> None:
    settings = {**SETTINGS, "deterministic": deterministic, "batch_size": 4}
    whole = trilemma.sample(convolution, 10, **settings).samples
    chunks = sample_chunks(convolution, 10, **settings)
    done = dict(zip(*map(list, next(chunks)), strict=True))  # then the run is killed
    done = {int(index): drawn for index, drawn in done.items()}
    missing = [index for index in range(10) if index not in done]
    for indices, drawn in sample_chunks(convolution, indices=missing, **settings):
        done |= {int(index): one for index, one in zip(indices, drawn, strict=True)}
    again = torch.stack([done[index] for index in range(10)])
    assert torch.equal(again, whole) if deterministic else (again - whole).abs().max() <= 1e-4


def test_nothing_is_missing() -> None:
    assert list(sample_chunks(GAUSSIAN, indices=[], sampler=DDIM())) == []
    assert trilemma.sample(GAUSSIAN, indices=[], sampler=DDIM()).samples.shape == (0, 1, 3, 3)


def test_chunks_own_their_samples() -> None:
    """A chunk is not a view of buffers that the next one overwrites."""
    chunks = sample_chunks(GAUSSIAN, 6, batch_size=3, sampler=DDIM(), steps=4)
    _, first = next(chunks)
    kept = first.clone()
    next(chunks)
    assert torch.equal(first, kept)
    with pytest.raises(StopIteration):
        next(chunks)


def test_seeds_and_samples_differ() -> None:
    one, other = (
        trilemma.sample(GAUSSIAN, 2, seed=seed, sampler=DDIM(), steps=4).samples for seed in (0, 2**63)
    )
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_a_list_of_conditions_is_cycled_through_by_sample() -> None:
    drawn = trilemma.sample(GAUSSIAN, 5, cond={"class": [0, 1]}, sampler=DDIM(), steps=5).samples
    for index, label in enumerate([0, 1, 0, 1, 0]):
        alone = trilemma.sample(GAUSSIAN, indices=[index], cond={"class": label}, sampler=DDIM(), steps=5)
        assert torch.equal(alone.samples[0], drawn[index])


# What is left alone


@pytest.mark.parametrize("sampler", [DDIM(eta=1.0), DDPM()], ids=str)
def test_the_global_generator_is_neither_read_nor_written(sampler: Sampler) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = trilemma.sample(GAUSSIAN, 3, sampler=sampler, steps=5).samples
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(trilemma.sample(GAUSSIAN, 3, sampler=sampler, steps=5).samples, one)


def test_eight_threads_draw_what_one_draws(convolution: Denoiser) -> None:
    def draw(thread: int) -> Tensor:
        settings = {**SETTINGS, "guidance": CFG(1.0 + thread), "steps": 4 + thread}
        return trilemma.sample(convolution, 5, seed=thread, batch_size=2 + thread % 3, **settings).samples

    alone = [draw(thread) for thread in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(draw, range(8)))
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_model_is_left_as_it_was(convolution: Denoiser) -> None:
    before = {name: (tensor.clone(), tensor._version) for name, tensor in convolution.state_dict().items()}
    trilemma.sample(convolution, 3, **SETTINGS)
    for name, tensor in convolution.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor._version == before[name][1]
    assert not convolution.training


def test_samples_can_be_used_in_autograd() -> None:
    drawn = trilemma.sample(GAUSSIAN, 2, sampler=DDIM(), steps=2).samples
    assert not drawn.is_inference()
    weight = torch.ones(1, requires_grad=True)
    (weight * drawn).sum().backward()
    assert weight.grad is not None
    assert not next(sample_chunks(GAUSSIAN, 2, sampler=DDIM(), steps=2))[1].is_inference()


def test_inference_mode_does_not_leak_out_of_a_run_under_way() -> None:
    chunks = sample_chunks(GAUSSIAN, 4, batch_size=2, sampler=DDIM(), steps=2)
    next(chunks)
    assert not torch.is_inference_mode_enabled()


# Noise, latents, dtypes


def test_injected_noise_is_what_keyed_noise_would_be() -> None:
    indices, shape, source = torch.arange(4), (1, 3, 3), KeyedNoise(5)
    injected = InjectedNoise(
        prior=source.normal(indices, 0, shape, stream=0),
        steps=torch.stack([source.normal(indices, step, shape, stream=1) for step in range(6)]),
    )
    keyed = trilemma.sample(GAUSSIAN, 4, seed=5, **SETTINGS).samples
    drawn = trilemma.sample(GAUSSIAN, 4, noise=injected, **SETTINGS)
    assert torch.allclose(drawn.samples, keyed, atol=1e-6)
    assert drawn.provenance["seed"] is None


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_latent_stands_in_for_the_prior(deterministic: bool) -> None:
    indices = [2, 7, 65]
    latent = torch.cat([KeyedNoise(0).normal(torch.tensor([i]), 0, (1, 3, 3), stream=0) for i in indices])
    given = trilemma.sample(GAUSSIAN, indices=indices, latent=latent, deterministic=deterministic, **SETTINGS)
    assert torch.equal(given.samples, trilemma.sample(GAUSSIAN, indices=indices, **SETTINGS).samples)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, "float16"])
def test_the_dtype_of_the_state(dtype: Any) -> None:
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    exact = trilemma.sample(GAUSSIAN, 8, sampler=DDIM(), steps=20, dtype=torch.float64).samples
    drawn = trilemma.sample(GAUSSIAN, 8, sampler=DDIM(), steps=20, dtype=dtype).samples
    assert drawn.dtype == wanted
    assert (drawn.double() - exact).abs().max() < 0.1


# Trajectories and provenance


def test_the_callback_sees_every_step_and_its_time() -> None:
    seen: list[tuple[int, int, float]] = []
    states: list[Tensor] = []

    def callback(step: int, steps: int, t: float, state: Tensor) -> None:
        seen.append((step, steps, t))
        states.append(state.clone())

    drawn = trilemma.sample(GAUSSIAN, 2, sampler=DDIM(), steps=4, callback=callback).samples
    assert seen == [(1, 4, 0.75), (2, 4, 0.5), (3, 4, 0.25), (4, 4, 0.0)]
    assert torch.equal(states[-1], drawn)
    assert not torch.equal(states[0], states[1])


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    trilemma.sample(GAUSSIAN, 3, batch_size=2, sampler=DDIM(), steps=5, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10/10" in captured.err


def test_provenance_says_what_ran_and_can_be_written_as_json() -> None:
    provenance = trilemma.sample(
        GAUSSIAN,
        3,
        seed=9,
        sampler=DDIM(eta=0.5),
        steps=6,
        guidance=CFG(3.0),
        cond={"class": torch.tensor([0, 1])},
    ).provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["sampler"].startswith("ddim:eta=0.5")
    assert provenance["guidance"].startswith("cfg:scale=3")
    assert provenance["process"].startswith("vp:")
    assert (provenance["seed"], provenance["n"], provenance["steps"], provenance["nfe"]) == (9, 3, 6, 12)
    assert provenance["cond"] == {"class": [0, 1]}
    assert provenance["backend"] in ("native", "reference")
    assert provenance["seconds"] > 0
    assert provenance["images_per_second"] == pytest.approx(3 / provenance["seconds"])


def test_the_backend_in_the_provenance_is_the_one_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "reference")
    assert trilemma.sample(GAUSSIAN, sampler=DDIM(), steps=2).provenance["backend"] == "reference"


# A sampler without a plan


@dataclass(frozen=True)
class Midpoint(Sampler):
    """The midpoint rule on dx̄ = ε̂ dσ̄, written as steps of its own: two evaluations a step but the last."""

    order = 2
    deterministic = True

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def sample(
        self,
        predict: Any,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        process = GAUSSIAN.process
        for step, (t, s) in enumerate(itertools.pairwise(times)):
            a_t, s_t = process.alpha(t).item(), process.sigma(t).item()
            a_s, s_s = process.alpha(s).item(), process.sigma(s).item()
            x, ratio_t, ratio_s = z / a_t, s_t / a_t, s_s / a_s
            eps = predict(z, t.item(), "eps")
            if s > 0:
                middle = (ratio_t + ratio_s) / 2
                m = process.time_of_log_snr(
                    torch.tensor(-2.0, dtype=torch.float64) * torch.tensor(middle).log()
                )
                half = process.alpha(m).item() * (x + (middle - ratio_t) * eps)
                eps = predict(half, m.item(), "eps")
            z = a_s * (x + (ratio_s - ratio_t) * eps) + 0 * noise(step)
            report(step + 1, s.item(), z)
        return z


def test_a_sampler_of_its_own_is_guided_counted_and_reported() -> None:
    seen: list[int] = []
    settings = {**SETTINGS, "sampler": Midpoint()}
    drawn = trilemma.sample(GAUSSIAN, 5, batch_size=2, callback=lambda *a: seen.append(a[0]), **settings)
    assert seen == [1, 2, 3, 4, 5, 6] * 3
    assert drawn.provenance["nfe"] == 2 * (2 * 6 - 1)
    assert drawn.provenance["backend"] == "pytorch"
    alone = trilemma.sample(GAUSSIAN, indices=[3], **{**SETTINGS, "sampler": Midpoint()})
    assert torch.equal(alone.samples[0], drawn.samples[3])


def test_a_sampler_of_its_own_solves_the_guided_equation() -> None:
    """The flow keeps (z − α m)/√(α² s² + σ²), here with s² = .25 and the guided mean m = 0 + 2 (.5 − 0) = 1."""
    settings = {"sampler": Midpoint(), "steps": 60, "guidance": CFG(2.0), "cond": {"class": 0}}
    latent = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)
    drawn = trilemma.sample(GAUSSIAN, latent=latent, dtype="float64", **settings).samples
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = GAUSSIAN.process.alpha(one), GAUSSIAN.process.sigma(one)
    exact = 1 + 0.5 * (latent - alpha) / (alpha.square() / 4 + sigma.square()).sqrt()
    assert torch.allclose(drawn, exact, atol=2e-2)


def test_a_sampler_of_its_own_that_gives_nan_is_named() -> None:
    class Broken(Midpoint):
        def sample(self, predict: Any, z: Tensor, *rest: Any) -> Tensor:
            return z * float("nan")

    with pytest.raises(TrilemmaError, match=r"Broken .* sample 4"):
        trilemma.sample(GAUSSIAN, indices=[4], sampler=Broken(), steps=2)


# What is refused


class Unconditional(Denoiser):
    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return z


class NeedsClass(Unconditional):
    def __init__(self) -> None:
        super().__init__(DiscreteVP(), "eps", (1, 2, 2), [ClassCondition("class", 3)])


class Dropped(Unconditional):
    def __init__(self) -> None:
        super().__init__(DiscreteVP(), "eps", (1, 2, 2))
        self.dropout = nn.Dropout(0.1)


PLAIN = Unconditional(DiscreteVP(T=10), "eps", (1, 2, 2))


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (PLAIN, {"steps": 0}, "steps=0"),
        (PLAIN, {"steps": 11}, "more than the 10 steps"),
        (PLAIN, {"n": -1}, "n=-1"),
        (PLAIN, {"n": 0}, "n=0"),
        (PLAIN, {"n": 2.5}, "n=2.5"),
        (PLAIN, {"batch_size": -4}, "batch_size=-4"),
        (PLAIN, {"seed": -1}, "seed=-1"),
        (PLAIN, {"seed": 1.5}, "seed=1.5"),
        (PLAIN, {"seed": 2**64}, "2\\*\\*64 - 1"),
        (PLAIN, {"indices": [0, -1]}, "index=-1"),
        (PLAIN, {"indices": [2**60]}, "out of range"),
        (PLAIN, {"dtype": torch.int32}, "dtype"),
        (PLAIN, {"dtype": "float99"}, "dtype"),
        (PLAIN, {"cond": {"class": 1}}, "unknown condition 'class'"),
        (PLAIN, {"guidance": CFG(2.0), "cond": {"class": 1}}, "takes no condition"),
        (PLAIN, {"guidance": DDIM()}, "not a guidance"),
        (PLAIN, {"sampler": CFG()}, "not a sampler"),
        (PLAIN, {"latent": torch.zeros(2, 1, 3, 3)}, "shape"),
        (PLAIN, {"latent": torch.full((1, 1, 2, 2), float("nan"))}, "not finite"),
        (PLAIN, {"latent": torch.zeros(2, 1, 2, 2), "indices": [1]}, "2 states"),
        (GAUSSIAN, {"cond": {"class": 2}}, "out of range|from 0 to 1"),
        (GAUSSIAN, {"cond": {"class": [0, -1]}}, "-1"),
        (GAUSSIAN, {"guidance": CFG(2.0)}, "needs a condition"),
        (GAUSSIAN, {"guidance": CFG(2.0), "cond": {"class": None}}, "needs a condition"),
        (NeedsClass(), {}, "'class' is missing"),
        (NeedsClass(), {"guidance": CFG(2.0), "cond": {"class": 1}}, "needs a null"),
        (Dropped(), {}, "model.eval()"),
        (nn.Identity(), {}, "not a denoiser"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(
    model: Any, arguments: dict[str, Any], words: str
) -> None:
    arguments = {"sampler": DDIM(), "steps": 5, **arguments}
    with pytest.raises(UsageError, match=words) as error:
        sample_chunks(model, **arguments)  # before the first batch
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_network_in_evaluation_mode_may_have_dropout() -> None:
    trilemma.sample(Dropped().eval(), sampler=DDIM(), steps=2)


def test_continuous_processes_are_sampled_too() -> None:
    model = GaussianDenoiser(ContinuousVP("cosine"), 0.5, 0.04, "v", (1, 8, 8))
    drawn = trilemma.sample(model, 64, sampler=DDIM(), steps=100, dtype="float64").samples
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.2, abs=0.02)
