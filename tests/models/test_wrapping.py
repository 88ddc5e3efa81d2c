"""Networks of any origin as denoisers: what they are told, what is taken for their answer, what is refused."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.errors import UsageError
from trilemma.testing import GaussianDenoiser, WordEncoder

SHAPE = (1, 2, 2)


class Watching(nn.Module):
    """Answers z times a weight, in the form asked for, and keeps what it was told."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))
        self.form = form
        self.told: list[Tensor] = []
        self.labels: Tensor | None = None

    def forward(self, z: Tensor, clock: Tensor, class_labels: Tensor | None = None) -> Any:
        self.told.append(clock)
        self.labels = class_labels
        answer = z * self.weight
        return {"tensor": answer, "tuple": (answer, None), "field": SimpleNamespace(sample=answer)}[self.form]


def test_a_wrapped_function_samples_the_bits_of_the_denoiser() -> None:
    exact = GaussianDenoiser(trilemma.process("vp:schedule=cosine"), parameterization="v", shape=SHAPE)
    wrapped = trilemma.wrap(exact, "vp:schedule=cosine", "v", SHAPE)
    options: dict[str, Any] = {"sampler": "dpmpp-2m", "steps": 7, "dtype": torch.float64}
    expected, found = (trilemma.sample(model, 3, **options).samples for model in (exact, wrapped))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("form", ["tensor", "tuple", "field"])
def test_every_form_of_answer_is_read(form: str) -> None:
    network = Watching(form).eval()
    z = torch.randn(3, *SHAPE)
    found = trilemma.wrap(network, "vp", "eps", SHAPE)(z, torch.full((3,), 0.5))
    assert torch.equal(found, z * network.weight)


def test_every_clock_tells_its_own() -> None:
    process = trilemma.process("vp:T=1000")
    t = torch.tensor([0.001, 0.25, 0.8505, 1.0])
    told = {}
    for clock in ("t", "index", "log-snr", "sigma"):
        network = Watching()
        trilemma.wrap(network, process, "eps", SHAPE, clock=clock)(torch.zeros(4, *SHAPE), t)
        told[clock] = network.told[-1]
        assert told[clock].dtype == t.dtype
    assert torch.equal(told["t"], t)
    assert told["index"].tolist() == [0.0, 249.0, pytest.approx(849.5, abs=1e-3), 999.0]
    alpha, sigma = process.alpha(t.double()), process.sigma(t.double())
    torch.testing.assert_close(told["sigma"].double(), sigma / alpha, rtol=1e-5, atol=0)
    torch.testing.assert_close(told["log-snr"].double(), 2 * (alpha / sigma).log(), rtol=1e-5, atol=1e-5)


def test_classes_reach_the_network_and_a_call_of_its_own_replaces_the_usual_one() -> None:
    network = Watching().eval()
    model = trilemma.wrap(network, "vp", "eps", SHAPE, classes=3, null=3)
    trilemma.sample(model, 2, steps=1, cond={"class": [2, 1]})
    assert network.labels is not None
    assert network.labels.tolist() == [2, 1]

    def call(network: Any, z: Tensor, clock: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([z, z], 1)[:, : z.shape[1]] * cond["class"].view(-1, 1, 1, 1)

    model = trilemma.wrap(network, "vp", "eps", SHAPE, classes=3, null=3, call=call)
    z = torch.randn(2, *SHAPE)
    found = model(z, torch.ones(2), **{"class": torch.tensor([0, 2])})
    assert torch.equal(found, z * torch.tensor([0.0, 2.0]).view(-1, 1, 1, 1))


def test_a_network_of_diffusers_is_wrapped_in_one_line() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    model = trilemma.wrap(unet, "vp:schedule=scaled_linear,T=1000", "eps", (3, 8, 8), clock="index")
    drawn = trilemma.sample(model, 2, sampler="ddim", steps=3)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(3)
    with torch.no_grad():
        z = trilemma.sample(model, 2, sampler="ddim", steps=3, trajectory=True).trajectory[0]  # type: ignore[index]
        # Its own previous time is T // steps below, which a grid of 3 steps of 1000 misses by one.
        times = [*scheduler.timesteps.tolist(), -1]
        for now, after in itertools.pairwise(times):
            eps = unet(z, now).sample
            a = scheduler.alphas_cumprod[now].double()
            b = scheduler.alphas_cumprod[after].double() if after >= 0 else torch.ones(())
            x0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
            z = (b.sqrt() * x0 + (1 - b).sqrt() * eps).float()
    torch.testing.assert_close(drawn.samples, z, rtol=1e-3, atol=1e-3)


def test_a_wrong_answer_says_what_was_expected() -> None:
    model = trilemma.wrap(lambda z, t: torch.cat([z, z], 1), "vp", "eps", SHAPE)
    with pytest.raises(UsageError, match=r"\(2, 2, 2, 2\), expected \(2, 1, 2, 2\); give wrap a call="):
        trilemma.sample(model, 2, steps=1)
    with pytest.raises(UsageError, match="answers with str"):
        trilemma.sample(trilemma.wrap(lambda z, t: "x", "vp", "eps", SHAPE), 2, steps=1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, "vp", "eps", SHAPE), {}, "cannot be called"),
        ((Watching, "vp", "eps", SHAPE), {}, "the class Watching cannot be called"),
        ((Watching(), "vp", "eps", 3), {}, "shape=3 is no shape"),
        ((Watching(), "vp", "eps", "1x2x2"), {}, "is no shape"),
        ((Watching(), "vp", "eps", ()), {}, "is no shape"),
        ((Watching(), "vp", "eps", (1, -1, 2)), {}, r"shape\[1\]=-1"),
        ((Watching(), "vp", "eps", (1, 2.0, 2)), {}, r"shape\[1\]=2\.0"),
        ((Watching(), "vp", "eps", SHAPE), {"call": 3}, "call=3 cannot be called"),
        ((Watching(), "vp", "eps", SHAPE), {"classes": -1}, "classes=-1"),
        ((Watching(), "vp", "eps", SHAPE), {"classes": True}, "classes=True"),
        ((Watching(), "vp", "eps", SHAPE), {"classes": "3"}, "no list of names"),
        ((Watching(), "vp", "eps", SHAPE), {"classes": ["cat", 2]}, "no list of names"),
        ((Watching(), "vp", "eps", SHAPE), {"classes": 3, "null": -1}, "null=-1"),
        ((Watching(), "vp", "eps", SHAPE), {"null": 3}, "there are no classes"),
        ((Watching(), "flow", "flow", SHAPE), {"clock": "sigma"}, "infinite sigma at t = 1"),
        ((Watching(), "flow", "flow", SHAPE), {"clock": "log-snr"}, "infinite log-snr at t = 1"),
        ((Watching(), 3, "eps", SHAPE), {}, "is no process"),
        ((Watching(), "vp", "noise", SHAPE), {}, "unknown parameterization"),
        ((Watching(), "vp", "eps", SHAPE), {"clock": "step"}, "unknown clock"),
        ((Watching(), "edm", "eps", SHAPE), {"clock": "index"}, "no table"),
    ],
)
def test_impossible_arguments_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        trilemma.wrap(*arguments, **options)


def test_the_refusal_of_a_bare_network_names_wrap() -> None:
    with pytest.raises(UsageError, match=r"trilemma\.wrap\(network, process, parameterization, shape\)"):
        trilemma.sample(nn.Identity(), 1)  # type: ignore[arg-type]


class Frozen(nn.Module):
    """A network with a part in another mode than its own, whose method is called under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.outer = nn.Conv2d(4, 1, 1)
        self.frozen = nn.BatchNorm2d(1).eval()

    def forward(self, z: Tensor, clock: Tensor) -> Tensor:
        return self.outer(nn.functional.silu(self.norm(self.inner(z))))

    def answer(self, z: Tensor, clock: Tensor, scale: float = 1.0) -> Tensor:
        return self(z, clock) * scale


@pytest.fixture
def frozen() -> Frozen:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Frozen()


def drawn(model: Any, **options: Any) -> Tensor:
    return trilemma.sample(model, 2, steps=3, **options).samples


def test_the_modes_of_a_network_stay_what_they_were(frozen: Frozen) -> None:
    model = trilemma.wrap(frozen, "vp", "eps", SHAPE)
    assert model.training
    assert frozen.norm.training
    assert not frozen.frozen.training
    assert not trilemma.wrap(frozen.eval(), "vp", "eps", SHAPE).training


@pytest.mark.parametrize("form", ["method", "partial", "partial of a method"])
def test_the_module_of_a_method_or_a_partial_is_known(frozen: Frozen, form: str) -> None:
    frozen.eval()
    given = {
        "method": frozen.answer,
        "partial": functools.partial(frozen),
        "partial of a method": functools.partial(frozen.answer, scale=1.0),
    }[form]
    model = trilemma.wrap(given, "vp", "eps", SHAPE)
    assert len(model.own_tensors()) == len([*frozen.parameters(), *frozen.buffers()])
    assert torch.equal(drawn(model), drawn(trilemma.wrap(frozen, "vp", "eps", SHAPE)))
    copied = copy.deepcopy(model)
    before = drawn(copied)
    with torch.no_grad():
        frozen.outer.weight.zero_()
    assert torch.equal(drawn(copied), before)
    frozen.train()
    with pytest.raises(UsageError, match="BatchNorm2d is in training mode"):
        drawn(model)


def test_a_network_that_changes_its_input_is_refused() -> None:
    model = trilemma.wrap(lambda z, t: z.mul_(0.5), "vp", "eps", SHAPE)
    with pytest.raises(UsageError, match="changes its input in place"):
        drawn(model)
    mended = trilemma.wrap(
        lambda z, t: z.mul_(0.5), "vp", "eps", SHAPE, call=lambda network, z, t, cond: network(z.clone(), t)
    )
    assert torch.equal(drawn(mended), drawn(trilemma.wrap(lambda z, t: z * 0.5, "vp", "eps", SHAPE)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("clock", ["t", "index", "log-snr", "sigma"])
def test_states_are_in_the_networks_dtype_and_the_clock_never_below_float32(
    dtype: torch.dtype, clock: str
) -> None:
    network = Watching().eval().to(dtype)
    model = trilemma.wrap(network, "vp", "eps", SHAPE, clock=clock)
    assert drawn(model).dtype == dtype
    assert {told.dtype for told in network.told} == {torch.promote_types(dtype, torch.float32)}


def test_rows_of_a_long_table_are_whole_in_float32() -> None:
    network = Watching()
    rows = torch.arange(200_000)
    model = trilemma.wrap(network, "vp:T=200000", "eps", SHAPE, clock="index")
    model(torch.zeros(len(rows), *SHAPE), ((rows + 1).double() / 200_000).float())
    assert torch.equal(network.told[-1], rows.float())


@pytest.mark.parametrize("clock", ["t", "index", "log-snr", "sigma"])
def test_it_compiles_into_one_graph(frozen: Frozen, clock: str) -> None:
    model = trilemma.wrap(frozen.eval(), "vp", "eps", SHAPE, clock=clock)
    plain = drawn(model)
    model.compile(backend="eager", fullgraph=True)
    assert torch.equal(drawn(model), plain)
    inside = torch.compile(frozen, backend="eager")
    assert torch.equal(drawn(trilemma.wrap(inside, "vp", "eps", SHAPE, clock=clock)), plain)
    with pytest.raises(UsageError, match=r"compile it in place by model\.compile\(\)"):
        drawn(torch.compile(model, backend="eager"))


def test_it_is_copied_pickled_and_fused(frozen: Frozen) -> None:
    model = trilemma.wrap(frozen.eval(), "vp", "eps", SHAPE)
    plain = drawn(model)
    assert torch.equal(drawn(pickle.loads(pickle.dumps(model))), plain)
    copied = copy.deepcopy(model)
    report = trilemma.fuse(copied)
    assert "GroupNorm + SiLU" in str(report)
    torch.testing.assert_close(drawn(copied), plain)
    assert torch.equal(drawn(model), plain)


def test_guidance_and_names_of_classes() -> None:
    network = Watching().eval()
    model = trilemma.wrap(network, "vp", "eps", SHAPE, classes=["cat", "traffic light"], null=2)
    drawn(model, guidance="cfg:scale=2", cond={"class": ["traffic light", "cat"]})
    assert network.labels is not None
    assert sorted(network.labels.tolist()) == [0, 1, 2, 2]


def test_records_tell_wrapped_networks_apart(frozen: Frozen) -> None:
    found = [
        trilemma.sample(trilemma.wrap(network, "vp", kind, SHAPE, clock=clock), 1, steps=1).provenance[
            "model"
        ]
        for network, kind, clock in (
            (frozen.eval(), "eps", "t"),
            (frozen, "v", "t"),
            (frozen, "v", "index"),
            (frozen.answer, "v", "index"),
        )
    ]
    assert [entry["name"] for entry in found] == [
        "wrap(Frozen, eps, clock=t)",
        "wrap(Frozen, v, clock=t)",
        "wrap(Frozen, v, clock=index)",
        "wrap(Frozen.answer, v, clock=index)",
    ]


def test_gradients_reach_the_input(frozen: Frozen) -> None:
    z = torch.randn(2, *SHAPE, requires_grad=True)
    trilemma.wrap(frozen, "vp", "eps", SHAPE)(z, torch.ones(2)).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_conditions_of_every_kind_reach_the_network_by_keyword() -> None:
    told: dict[str, Any] = {}

    def network(z: Tensor, clock: Tensor, **cond: Any) -> Tensor:
        told.update(cond)
        return z

    encoder = WordEncoder(4)
    model = trilemma.wrap(
        network,
        "vp",
        "eps",
        SHAPE,
        classes=["cat", "dog"],
        null=2,
        conditions=[
            {"kind": "scalar", "name": "level", "null": True},
            trilemma.ImageCondition("image", SHAPE),
            trilemma.TextCondition("text", encoder, length=3),
        ],
    )
    cond = {"class": "dog", "image": torch.ones(SHAPE), "text": "a dog"}
    drawn(model, guidance="cfg:scale=2,drop=text", cond=cond)
    assert set(told) == {"class_labels", "level", "level_given", "image", "text", "text_mask"}
    assert set(told["class_labels"].tolist()) == {1}
    assert not bool(told["level_given"].any())
    assert torch.equal(told["text"][0, 1], encoder.embedding("dog"))
    assert told["text_mask"].any(1).tolist() == [True, True, False, False]
    with pytest.raises(UsageError, match="condition 'image' is missing"):
        drawn(model)
    with pytest.raises(UsageError, match="the name 'class' of 'class' is taken"):
        trilemma.wrap(network, "vp", "eps", SHAPE, classes=2, conditions=[{"kind": "class", "size": 2}])
