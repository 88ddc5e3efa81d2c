"""The runner against a plain reading of the tableau, and what its loop pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import trilemma
from trilemma.engine.loop import Batch
from trilemma.engine.noise import InjectedNoise
from trilemma.engine.program import guided, lower
from trilemma.engine.runner import Runner
from trilemma.errors import TrilemmaError
from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Branch, Guidance
from trilemma.interfaces.guidance import Weighted as BranchWeights
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.numerics.conversion import convert
from trilemma.ops import layout
from trilemma.testing.exact_processes import PhaseProcess
from trilemma.testing.interpreter import interpret
from trilemma.testing.watching import Watch
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.ddpm.sampler import DDPM

PROCESS = DiscreteVP()
SHAPE = (1, 2, 2)


class Curved(Denoiser):
    """Nonlinear in z and different in every branch, so that a wrong state, order or branch shows."""

    def __init__(self, parameterization: str = "v") -> None:
        super().__init__(PROCESS, parameterization, SHAPE)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        branch = cond["branch"].view(-1, 1, 1, 1).to(z.dtype)
        return (z * (1 + branch)).sin() + t.view(-1, 1, 1, 1).to(z.dtype)


class Weighted(Guidance):
    """Branches with weights that depend on time."""

    def __init__(self, count: int) -> None:
        self.count = count

    linear = True

    def bind(self, model: Denoiser, cond: Any, times: Tensor) -> BoundGuidance:
        return BoundWeights([Branch(dict(cond), model)] * self.count, self)

    def weights(self, t: float) -> tuple[float, ...]:
        return tuple((g + 1) * t for g in range(self.count))


class Quadratic(Weighted):
    """The same number of branches, combined by something that is not linear."""

    linear = False

    def combine(self, z: Tensor, t: float, predictions: Any) -> Tensor:
        return sum(p.square() for p in predictions) + t * z


class BoundWeights(BranchWeights):
    """Weights or a combination of a guidance above."""

    def __init__(self, branches: list[Branch], guidance: Any) -> None:
        super().__init__(branches, guidance.weights)
        self.guidance, self.linear = guidance, guidance.linear

    def combine(self, z: Tensor, t: float, predictions: Any, targets: Any) -> Tensor:
        if self.linear:
            return super().combine(z, t, predictions, targets)
        return self.guidance.combine(z, t, predictions)


@st.composite
def tableaus(draw: st.DrawFn) -> Tableau:
    number = st.floats(-1, 1, width=32)
    rows = []
    for r in range(draw(st.integers(1, 6))):
        lags = draw(st.sets(st.integers(0, r), max_size=4))
        B = tuple((lag, draw(number)) for lag in sorted(lags))
        C = draw(st.one_of(st.just(0.0), number))
        further = draw(st.lists(st.tuples(st.integers(0, r), number), max_size=layout.MAX_OTHERS))
        rows.append(Row(1 - r / 10, draw(number), B, C, base=draw(st.integers(0, r)), D=tuple(further)))
    parameterization = draw(st.sampled_from(["x0", "eps", "v"]))
    return Tableau(tuple(rows), parameterization, draw(st.sampled_from([None, 0.5])))


def plain_run(
    tableau: Tableau, denoiser: Denoiser, guidance: Weighted, start: Tensor, noise: Tensor
) -> Tensor:
    """The tableau read literally, with its guidance and its clip."""

    def predict(r: int, row: Row, z: Tensor) -> Tensor:
        t = torch.full((len(z),), row.t, dtype=z.dtype)
        outputs = [denoiser(z, t, branch=torch.full((len(z),), g)) for g in range(guidance.count)]
        if guidance.linear:
            output = sum(w * o for w, o in zip(guidance.weights(row.t), outputs, strict=True))
        else:
            output = guidance.combine(z, row.t, outputs)
        time = torch.tensor(row.t, dtype=torch.float64)
        alpha, sigma = PROCESS.alpha(time), PROCESS.sigma(time)
        if tableau.clip is None:
            p, q = convert(denoiser.parameterization, tableau.parameterization, alpha, sigma)
            return p * z + q * output
        p, q = convert(denoiser.parameterization, "x0", alpha, sigma)
        x0 = (p * z + q * output).clamp(-tableau.clip, tableau.clip)
        p, q = convert("x0", tableau.parameterization, alpha, sigma)
        return p * z + q * x0

    return interpret(tableau, predict, start, noise.__getitem__)[-1]


def runner_of(tableau: Tableau, denoiser: Denoiser, guidance: Guidance, start: Tensor) -> Runner:
    """Runs a tableau in float64, on batches like `start`."""
    bound = guidance.bind(denoiser, {}, torch.tensor([1.0, 0.0], dtype=torch.float64))
    program = guided(lower(tableau, denoiser.parameterization, denoiser.process), bound)
    sizes = (len(start), tuple(start.shape[1:]), torch.float64, torch.float64, torch.device("cpu"))
    return Runner(lambda kind: kind(program, bound, *sizes), "off", 1)


@settings(max_examples=60, deadline=None)
@given(
    tableau=tableaus(),
    network=st.sampled_from(["x0", "eps", "v"]),
    guidance=st.builds(
        lambda kind, count: kind(count), st.sampled_from([Weighted, Quadratic]), st.integers(1, 3)
    ),
    batch=st.integers(1, 4),
)
def test_any_tableau_is_run_as_it_reads(
    tableau: Tableau, network: str, guidance: Weighted, batch: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(tableau.rows), batch, *SHAPE, generator=generator, dtype=torch.float64)
    denoiser = Curved(network)
    runner = runner_of(tableau, denoiser, guidance, start)
    cond = {"branch": torch.arange(guidance.count).repeat_interleave(batch)}
    for _ in range(2):  # a runner is used again: nothing of the first run may show
        drawn = runner.run(Batch(start, torch.arange(batch), InjectedNoise(steps=noise), cond))
    assert torch.allclose(drawn, plain_run(tableau, denoiser, guidance, start, noise), rtol=1e-9, atol=1e-9)


class Coupled(Denoiser):
    """Curved in position and velocity; its output is one component."""

    def __init__(self) -> None:
        super().__init__(PhaseProcess(), "score", (3, 4), [ClassCondition("branch", size=4)])

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        x, v = z.chunk(2, 1)
        return torch.sin(x + 2 * v) * (t + cond["branch"]).view(-1, 1, 1).to(z.dtype)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), batch=st.integers(1, 3), count=st.integers(1, 2), seed=st.integers(0, 2**30))
def test_a_tableau_in_phase_space(data: st.DataObject, batch: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    rows = []
    for r in range(data.draw(st.integers(1, 5))):
        lags = data.draw(st.sets(st.integers(0, r), max_size=3))
        B = tuple((lag, tuple(normal(2).tolist())) for lag in sorted(lags))
        A, C = (tuple(map(tuple, normal(2, 2).tolist())) for _ in range(2))
        backs = data.draw(st.lists(st.integers(0, r), max_size=2))
        D = tuple((back, tuple(map(tuple, normal(2, 2).tolist()))) for back in backs)
        rows.append(Row(1 - 0.1 * r, A, B, C if r % 2 else 0.0, base=data.draw(st.integers(0, r)), D=D))
    denoiser, guidance = Coupled(), Weighted(count)
    tableau = Tableau(tuple(rows), "score", components=2)
    start, noise = normal(batch, 6, 4), normal(len(rows), batch, 6, 4)
    cond = {"branch": torch.arange(count).repeat_interleave(batch)}
    runner = runner_of(tableau, denoiser, guidance, start)
    drawn = runner.run(Batch(start, torch.arange(batch), InjectedNoise(steps=noise), cond))

    def times(matrix: Any, state: Tensor) -> Tensor:
        return torch.einsum("kl,blce->bkce", torch.tensor(matrix, dtype=torch.float64), state)

    def predict(r: int, row: Row, z: Tensor) -> Tensor:
        t = torch.full((batch,), row.t, dtype=torch.float64)
        outputs = [denoiser(z.flatten(1, 2), t, branch=torch.full((batch,), g)) for g in range(count)]
        return sum(w * o for w, o in zip(guidance.weights(row.t), outputs, strict=True))

    expected = interpret(
        tableau,
        predict,
        start.unflatten(1, (2, 3)),
        noise.unflatten(2, (2, 3)).__getitem__,
        on_states=times,
        on_predictions=lambda B, f: torch.stack([b * f for b in B], 1),
    )[-1]
    torch.testing.assert_close(drawn, expected.flatten(1, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(eta=1.0), DDIM(clip=1.0), DDPM()], ids=str)
@pytest.mark.parametrize("guidance", [None, CFG(scale=2.0)], ids=str)
def test_a_row_pays_one_evaluation_and_one_fused_step_and_nothing_else(
    convolution: Denoiser, sampler: Any, guidance: Any
) -> None:
    """No allocation, no view, no host read between the first call of the network and the last step."""
    with Watch(convolution) as record:
        drawn = trilemma.sample(
            convolution, 3, sampler=sampler, steps=7, guidance=guidance, cond={"class": [0, 1, 2]}
        )
    assert record.loop == ["network", "linear_step"] * 7
    assert record.calls.count("linear_step") == record.evaluations == 7
    assert drawn.provenance["nfe"] == (14 if guidance else 7)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()], ids=str)
@pytest.mark.parametrize("guidance", [None, CFG(scale=2.0)], ids=str)
def test_a_row_with_a_mask_still_pays_one_evaluation_and_one_fused_step(
    convolution: Denoiser, sampler: Any, guidance: Any
) -> None:
    """Besides them, three writes into buffers that were there before: no allocation, no view, no host read."""
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with Watch(convolution) as record:
        drawn = trilemma.sample(
            convolution,
            3,
            sampler=sampler,
            steps=5,
            guidance=guidance,
            cond={"class": [0, 1, 2]},
            known=x,
            mask=(x[:1, :1] > 0).float(),
        )
    imposed = ["mul_.Tensor", "add_.Tensor", "add_.Tensor"]
    assert record.loop == ["network", "linear_step", *imposed] * 4 + ["network", "linear_step"]
    assert drawn.provenance["nfe"] == (10 if guidance else 5)


def test_both_branches_of_guidance_are_one_batch(convolution: Denoiser) -> None:
    sizes: list[int] = []
    hook = convolution.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    try:
        trilemma.sample(convolution, 3, sampler=DDIM(), steps=2, guidance=CFG(scale=2.0), cond={"class": 1})
        trilemma.sample(convolution, 3, sampler=DDIM(), steps=2, guidance=CFG(scale=1.0), cond={"class": 1})
    finally:
        hook.remove()
    assert sizes == [6, 6, 3, 3]


class BreaksAt(Denoiser):
    """Answers with `value` in one sample at one call; with zeros otherwise."""

    def __init__(self, call: int, row: int, value: float) -> None:
        super().__init__(PROCESS, "eps", SHAPE)
        self.call, self.row, self.value, self.calls = call, row, value, 0

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answer = torch.zeros_like(z)
        if self.calls == self.call:
            answer[self.row, 0, 1, 1] = self.value
        self.calls += 1
        return answer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_error_of_a_value_that_is_not_finite_names_step_time_and_sample(
    value: float, clip: float | None
) -> None:
    if value == float("inf") and clip:
        pytest.skip("a clip makes infinity finite")
    with pytest.raises(TrilemmaError, match=r"step 3 of 5 \(t=0\.6\) .* sample 12;") as error:
        trilemma.sample(
            BreaksAt(call=2, row=2, value=value), sampler=DDIM(clip=clip), steps=5, indices=[10, 11, 12, 13]
        )
    assert "\n" not in str(error.value)


def test_a_denoiser_that_answers_another_shape_is_named() -> None:
    class Narrow(Denoiser):
        def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
            return z[:, :, :1]

    with pytest.raises(TrilemmaError, match="shape"):
        trilemma.sample(Narrow(PROCESS, "eps", SHAPE), sampler=DDIM(), steps=2)


def test_a_network_in_another_dtype_than_the_state(convolution: Denoiser) -> None:
    """The state is kept in float64 around a float32 network."""
    wide = trilemma.sample(convolution, 2, sampler=DDIM(), steps=5, dtype=torch.float64)
    narrow = trilemma.sample(convolution, 2, sampler=DDIM(), steps=5)
    assert wide.samples.dtype == torch.float64
    assert narrow.samples.dtype == torch.float32
    assert torch.allclose(wide.samples.float(), narrow.samples, atol=1e-4)
