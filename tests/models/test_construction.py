"""Networks are built and loaded the same whatever the process's generators and default dtype are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma import lookup
from trilemma.models.card import build_denoiser, load_model, save_model
from trilemma.models.construction import Constructing
from trilemma.registry import catalog

MODELS = ["mnist", "cld-mnist", "vdm-mnist"]
DTYPES = [torch.bfloat16, torch.float16, torch.float64]
CARD: dict[str, Any] = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4, "attention": [8], "head": 4},
    },
    "data": {"shape": [1, 8, 8]},
}


@pytest.fixture
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    try:
        yield request.param
    finally:
        torch.set_default_dtype(before)


def generators() -> tuple[bytes, bytes, Any]:
    return torch.get_rng_state().numpy().tobytes(), numpy.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("model", MODELS)
def test_loading_leaves_the_global_generators_as_they_are(model: str) -> None:
    before = generators()
    network = trilemma.load(model, fused=True)
    assert network.card is not None
    build_denoiser(network.card, seed=5)
    assert generators() == before


@pytest.mark.parametrize("model", MODELS)
def test_loading_is_not_led_by_a_default_device(model: str) -> None:
    wanted = trilemma.load(model).state_dict()
    with torch.device("meta"):
        found = trilemma.load(model).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_the_seed_decides_the_initial_weights() -> None:
    torch.manual_seed(7)
    process, _ = lookup.build("process", "vp:T=50")
    table = CARD["denoiser"]
    wanted, _ = lookup.build(
        "denoiser", "unet", process=process, parameterization="v", shape=(1, 8, 8), **table["options"]
    )
    torch.manual_seed(123)
    found, other = build_denoiser(CARD, seed=7).state_dict(), build_denoiser(CARD, seed=8).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.state_dict().items())
    assert any(not torch.equal(found[name], tensor) for name, tensor in other.items())


DRAWS: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(4),
    "rand_like": lambda: torch.rand_like(torch.zeros(4)),
    "randn_like": lambda: torch.randn_like(torch.zeros(4)),
    "randint": lambda: torch.randint(0, 100, (4,)),
    "randperm": lambda: torch.randperm(9),
    "normal": lambda: torch.normal(0.0, 1.0, (4,)),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 4),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.5)),
    "exponential_": lambda: torch.empty(4).exponential_(),
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(4)),
    "orthogonal_": lambda: nn.init.orthogonal_(torch.empty(3, 3)),
    "linear": lambda: nn.Linear(3, 3).weight.detach(),
    "attention": lambda: nn.MultiheadAttention(4, 2).in_proj_weight.detach(),
    "lstm": lambda: nn.LSTM(2, 2).weight_hh_l0.detach(),
    "distribution": lambda: torch.distributions.Normal(torch.zeros(4), torch.ones(4)).sample(),
}


@pytest.mark.parametrize("draw", list(DRAWS))
def test_every_draw_is_that_of_the_seed(draw: str) -> None:
    torch.manual_seed(11)
    wanted = DRAWS[draw]()
    before = generators()
    with Constructing(11):
        found = DRAWS[draw]()
    assert generators() == before
    assert torch.equal(found, wanted)


MADE: dict[str, Callable[[], Tensor]] = {
    "zeros": lambda: torch.zeros(3),
    "linspace": lambda: torch.linspace(0, 1, 7),
    "tensor": lambda: torch.tensor([0.1, 1 / 3]),
    "integers": lambda: torch.tensor([1, 2]),
    "complex": lambda: torch.tensor([1 / 3 + 0.1j]),
    "array": lambda: torch.tensor(numpy.array([0.1, 1 / 3])),
    "tensor of a tensor": lambda: torch.as_tensor(torch.tensor([0.1], dtype=torch.float64)),
    "full": lambda: torch.full((2,), 1 / 3),
    "arange": lambda: torch.arange(0, 1, 0.1),
    "arange of integers": lambda: torch.arange(5),
    "integers divided": lambda: torch.arange(1000) / 7,
    "integers times a number": lambda: torch.arange(1000) * 0.1,
    "root of integers": lambda: torch.arange(1000).sqrt(),
    "integers made double": lambda: torch.arange(2**25, 2**25 + 3).double(),
    "power of a number": lambda: 10000.0 ** (torch.arange(0, 32, 2) / 32),
    "convolution": lambda: nn.Conv2d(3, 3, 3).weight.detach(),
    "normalisation": lambda: nn.BatchNorm1d(3).running_var,
    "randn": lambda: torch.randn(5),
    "eye": lambda: torch.eye(3),
}


@pytest.mark.parametrize("default_dtype", DTYPES, indirect=True)
@pytest.mark.parametrize("made", list(MADE))
def test_what_is_built_has_the_dtype_it_has_by_default_float32(made: str, default_dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float32)
    with Constructing(1):
        wanted = MADE[made]()
    torch.set_default_dtype(default_dtype)
    with Constructing(1):
        found = MADE[made]()
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("default_dtype", DTYPES, indirect=True)
@pytest.mark.parametrize("model", MODELS)
def test_models_draw_the_same_bits_under_another_default_dtype(
    model: str, default_dtype: torch.dtype
) -> None:
    found = trilemma.sample(model, 2, steps=3, seed=4)
    weights = trilemma.load(model).state_dict()
    torch.set_default_dtype(torch.float32)
    wanted = trilemma.sample(model, 2, steps=3, seed=4)
    assert torch.equal(found.samples, wanted.samples)
    for name, tensor in trilemma.load(model).state_dict().items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name], tensor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    network = build_denoiser(CARD, seed=1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    save_model(path, CARD, network.state_dict())
    return path


GUIDANCES = [
    "cfg:scale=3",
    "cfg-pp:scale=0.5",
    "apg:scale=3",
    "perturbed-attention:scale=2",
    "rescale(cfg:scale=3)",
]


@pytest.mark.parametrize("default_dtype", DTYPES, indirect=True)
def test_every_sampler_draws_the_same_bits_under_another_default_dtype(
    folder: Path, default_dtype: torch.dtype
) -> None:
    network = load_model(folder)
    requests = [{"sampler": entry.address} for entry in catalog().components("sampler") if entry.built_in]
    requests += [{"sampler": "ddim", "guidance": guidance} for guidance in GUIDANCES]
    drawn: dict[int, Tensor | str] = {}
    differ = []
    for number, request in enumerate([*requests, *requests]):
        torch.set_default_dtype(default_dtype if number < len(requests) else torch.float32)
        try:
            given = {"class": 1} if "guidance" in request else None
            result: Tensor | str = trilemma.sample(network, 2, steps=6, cond=given, **request).samples
        except trilemma.TrilemmaError as error:
            result = str(error)
        if number < len(requests):
            drawn[number] = result
            continue
        found = drawn[number - len(requests)]
        same = (
            found == result
            if isinstance(result, str) or isinstance(found, str)
            else torch.equal(found, result)
        )
        if not same:
            differ.append((request, found if isinstance(found, str) else "bits"))
    assert not differ
    assert sum(isinstance(result, Tensor) for result in drawn.values()) >= 15
