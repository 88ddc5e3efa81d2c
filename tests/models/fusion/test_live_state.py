"""A fused network sees whatever becomes of it: it answers as an unfused one that the same was done to."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize, prune

import trilemma
from trilemma import ops
from trilemma.models.fusion import fuse, unfuse

pytestmark = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}
SWITCH = {"doubles": False}
TOLD: list[str] = []


class Block(nn.Module):
    """A residual block with everything in it that a forward may read."""

    identity = False

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.conv = nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1)
        self.inject, self.norm2 = nn.Linear(5, 16), nn.GroupNorm(2, 8)
        self.attention = Attention()
        self.scale, self.calls, self.drop = 1.0, 0, 0.0
        self.seen: list[float] = []
        self.register_buffer("offset", torch.zeros(8, 1, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        self.calls += 1
        h = self.conv(self.act(self.norm(x))) * self.scale + self.offset
        scale, shift = self.inject(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        if self.training:
            h = 2 * h
        h = F.dropout(h, self.drop)
        return h + self.attention(x.flatten(2).mT).mT.view_as(x)


class Attention(nn.Module):
    identity = False

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.identity:
            return v.transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Lora(nn.Module):
    """A layer with a low-rank path beside it, as it is put in the layer's place."""

    def __init__(self, layer: nn.Module, strength: float = 0.3) -> None:
        super().__init__()
        self.layer, self.strength = layer, strength

    def forward(self, *args: Any) -> Tensor:
        y: Tensor = self.layer(*args)
        return y + self.strength * y.mean()


class LearnedNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) + 1


class DoubledConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.sigmoid() * (1 + x * (1 - x.sigmoid())))


class MemoryEfficient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Swish.apply(x)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def block() -> Block:
    module = Block()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def given() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 8, 6, 6, generator=generator), torch.randn(3, 5, generator=generator)


def with_copied_norm(module: Block, kind: type[nn.GroupNorm]) -> None:
    other = kind(4, 8)
    other.load_state_dict(module.norm.state_dict())
    module.norm = other


def with_copied_conv(module: Block, kind: type[nn.Conv2d]) -> None:
    other = kind(8, 8, 3, padding=1)
    other.load_state_dict(module.conv.state_dict())
    module.conv = other


def assigned(module: Block) -> None:
    module.load_state_dict({name: 0.7 * value for name, value in module.state_dict().items()}, assign=True)


def doubled_in_place(module: Block) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)


def doubled_by_data(module: Block) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(1.5)


def hooked(child: str, pre: bool) -> Callable[[Block], None]:
    def change(module: Block) -> None:
        part = module.get_submodule(child)
        if pre:
            part.register_forward_pre_hook(lambda _, args: (args[0] * 1.5, *args[1:]))
        else:
            part.register_forward_hook(lambda owner, args, y: y.clone() * 1.5 + args[0].mean())

    return change


def watched(child: str) -> Callable[[Block], None]:
    """Hooks that keep what they see."""

    def change(module: Block) -> None:
        part = module.get_submodule(child)
        part.register_forward_pre_hook(lambda _, args: module.seen.append(float(args[0].detach().sum())))
        part.register_forward_hook(lambda _, args, y: module.seen.append(float(y.detach().square().sum())))

    return change


def patched(child: str) -> Callable[[Block], None]:
    def change(module: Block) -> None:
        part = module.get_submodule(child)
        before = part.forward
        part.forward = lambda *args: 1 - before(*args)  # type: ignore[method-assign]

    return change


def parametrized(child: str) -> Callable[[Block], None]:
    return lambda module: parametrize.register_parametrization(module.get_submodule(child), "weight", Half())


def then(*changes: Callable[[Block], Any]) -> Callable[[Block], Any]:
    def change(module: Block) -> None:
        for each in changes:
            each(module)

    return change


def setting(name: str, value: Any) -> Callable[[Block], None]:
    path, _, attribute = name.rpartition(".")
    return lambda module: setattr(module.get_submodule(path), attribute, copy.deepcopy(value))


CHANGES: dict[str, Callable[[Block], Any]] = {
    "nothing": lambda module: None,
    "an attribute of the block": setting("scale", 2.0),
    "eps": setting("norm.eps", 0.5),
    "eps of the modulated": setting("norm2.eps", 0.5),
    "groups": setting("norm.num_groups", 2),
    "no affine map": then(setting("norm.weight", None), setting("norm.bias", None)),
    "no bias": setting("norm2.bias", None),
    "the activation": setting("act", nn.GELU()),
    "the activation by its own gradient": setting("act", MemoryEfficient()),
    "the activation in place": setting("act.inplace", True),
    "no activation": setting("act", nn.Identity()),
    "attention": setting("attention.identity", True),
    "attention of the class": lambda module: setattr(module.attention, "identity", True),
    "LoRA on the norm": lambda module: setattr(module, "norm", Lora(module.norm)),
    "LoRA on the modulated norm": lambda module: setattr(module, "norm2", Lora(module.norm2)),
    "LoRA on the convolution": lambda module: setattr(module, "conv", Lora(module.conv)),
    "LoRA on the linear layer": lambda module: setattr(module, "inject", Lora(module.inject)),
    "LoRA in attention": lambda module: setattr(module.attention, "qkv", Lora(module.attention.qkv)),
    "LoRA on attention": lambda module: setattr(module, "attention", Lora(module.attention)),
    "a subclass of the norm": lambda module: with_copied_norm(module, LearnedNorm),
    "a subclass of the convolution": lambda module: with_copied_conv(module, DoubledConv),
    "another norm": lambda module: with_copied_norm(module, nn.GroupNorm),
    "another convolution": lambda module: with_copied_conv(module, nn.Conv2d),
    "weights assigned": assigned,
    "weights written": doubled_in_place,
    "weights written past autograd": doubled_by_data,
    "a weight replaced": lambda module: setattr(module.norm, "weight", nn.Parameter(torch.full((8,), 3.0))),
    "a buffer": setting("offset", torch.ones(8, 1, 1)),
    "a parametrized norm": parametrized("norm"),
    "a parametrized convolution": parametrized("conv"),
    "a parametrized linear layer": parametrized("inject"),
    "parametrized and back": lambda module: (
        parametrize.register_parametrization(module.conv, "weight", Half()),
        parametrize.remove_parametrizations(module.conv, "weight"),
    ),
    "weight norm": lambda module: parametrizations.weight_norm(module.conv),
    "pruned": lambda module: prune.l1_unstructured(module.conv, "weight", amount=0.5),
    "dilation": then(setting("conv.dilation", (2, 2)), setting("conv.padding", (2, 2))),
    "padding mode": then(
        setting("conv.padding_mode", "circular"),
        setting("conv._reversed_padding_repeated_twice", [1, 1, 1, 1]),
    ),
    "forward of the block": patched(""),
    "forward of the norm": patched("norm"),
    "forward of the modulated norm": patched("norm2"),
    "forward of the activation": patched("act"),
    "forward of the convolution": patched("conv"),
    "training": lambda module: module.train(),
    "dropout": setting("drop", 0.5),
    "frozen": lambda module: module.requires_grad_(False),
    **{
        f"{'pre-' * pre}hook on {child or 'the block'}": hooked(child, pre)
        for child in ("", "norm", "norm2", "act", "conv", "inject", "attention")
        for pre in (False, True)
    },
    **{f"watched {child or 'block'}": watched(child) for child in ("", "norm", "norm2", "act", "conv")},
    "LoRA, then an attribute, then a hook": then(
        lambda module: setattr(module, "norm", Lora(module.norm)),
        setting("norm.layer.eps", 0.3),
        hooked("norm", True),
    ),
}


def answered(module: Any) -> dict[str, Any]:
    """What a call gives, and what it leaves behind."""
    x, embedding = given()
    needs = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    x.requires_grad_(needs)
    torch.manual_seed(3)
    y = module(x, embedding)
    found = {"y": y.detach(), "draws": torch.rand(3)}
    if needs and y.requires_grad:
        found["dx"] = torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0]
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(y.square().sum(), weights, allow_unused=True) if weights else ()
        found |= {
            f"dw{number}": gradient for number, gradient in enumerate(gradients) if gradient is not None
        }
    return found


def assert_alike(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["fused and run before", "fused after"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, first: str, mode: str) -> None:
    plain, fused = block(), block()
    CHANGES[change](plain)
    with MODES[mode]():
        if first == "fused and run before":
            fuse(fused)
            answered(fused)
            fused.calls = 0
    CHANGES[change](fused)
    with MODES[mode]():
        if first == "fused after":
            fuse(fused)
        assert_alike(answered(fused), answered(plain))
        assert fused.calls == plain.calls
        assert fused.seen == pytest.approx(plain.seen, rel=1e-4)
    unfuse(fused)
    with MODES[mode]():
        assert_alike(answered(fused), answered(plain))


def cloned_by_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def replica(module: nn.Module) -> nn.Module:
    """As `nn.DataParallel` makes one, but with the weights of the original."""
    made = module._replicate_for_data_parallel()
    made._parameters = dict(module._parameters)
    return made


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": cloned_by_pickle,
    "replica": replica,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", COPIES)
def test_copies_are_of_their_own(way: str, mode: str) -> None:
    with MODES[mode]():
        original = block()
        fuse(original)
        wanted = answered(original)
        other = COPIES[way](original)
        if way in ("copy", "replica"):  # which share the mapping
            other._modules = dict(other._modules)
        assert_alike(answered(other), wanted)
        # The copy's block and norm have attributes of their own, and the original keeps its own.
        other.scale = 3.0
        other.norm = COPIES[way](original.norm)
        other.norm.eps = 0.5
        plain = block()
        plain.scale, plain.norm.eps = 3.0, 0.5
        found, told = answered(other), answered(plain)
        assert_alike({"y": found["y"]}, {"y": told["y"]})
        assert_alike(answered(original), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype(dtype: torch.dtype) -> None:
    plain, fused = block().to(dtype), block()
    x, embedding = (tensor.to(dtype) for tensor in given())
    with torch.inference_mode():
        fuse(fused)
        fused(*given())
        fused.to(dtype)
        found, wanted = fused(x, embedding), plain(x, embedding)
    assert found.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", MODES)
def test_functional_call(mode: str) -> None:
    plain, fused = block(), block()
    other = {name: 1.7 * value.detach() for name, value in plain.state_dict().items()}
    with MODES[mode]():
        fuse(fused)
        before = fused(*given())
        found = torch.func.functional_call(fused, other, given())
        torch.testing.assert_close(
            found, torch.func.functional_call(plain, other, given()), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(fused(*given()), before)


@contextmanager
def for_all_modules() -> Iterator[list[str]]:
    seen: list[str] = []
    handles = [
        register_module_forward_pre_hook(lambda module, args: seen.append(f"before {type(module).__name__}")),
        register_module_forward_hook(
            lambda module, args, y: (seen.append(type(module).__name__), 1.1 * y)[1]
        ),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("first", [False, True])
def test_hooks_of_all_modules(first: bool) -> None:
    plain, fused = block(), block()
    if first:
        fuse(fused)
    with for_all_modules() as seen, torch.no_grad():
        if not first:
            fuse(fused)
        assert not seen, "fusing called the modules"
        wanted, told = plain(*given()), list(seen)
        seen.clear()
        torch.testing.assert_close(fused(*given()), wanted, rtol=1e-4, atol=1e-4)
        assert seen == told


class Odd(nn.Module):
    """Forwards that do more than answer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.GroupNorm(4, 8), nn.SiLU()
        self.kept: dict[str, Tensor] = {}
        self.times = torch.zeros((), dtype=torch.int64)


class Draws(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x)) + torch.randn(1)


class DrawsByStrength(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x + 0.1 * torch.randn_like(x)))


class WithoutGradient(Odd):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.act(self.norm(x))
        return h + x


class InGradient(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x)) * (2 if torch.is_grad_enabled() else 3)


class Switched(Odd):
    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(x))
        return 2 * h if SWITCH["doubles"] else h


class Tells(Odd):
    def forward(self, x: Tensor) -> Tensor:
        TOLD.append("called")
        return self.act(self.norm(x))


class Keeps(Odd):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        self.kept["normal"] = h
        return self.act(h)


class WritesBetween(Odd):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        x += x.square()
        return self.act(h) + x


class WritesInFunction(Odd):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        y = F.relu(x, inplace=True)
        return self.act(h) + y


class WritesTheResult(Odd):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h.mul_(2)
        return self.act(h) + h


class Counts(Odd):
    def forward(self, x: Tensor) -> Tensor:
        self.times = self.times + 1
        return self.act(self.norm(x)) * self.times


class CountsInBuffer(Odd):
    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return self.act(self.norm(x)) * self.times


class CountsInPlace(Odd):
    def forward(self, x: Tensor) -> Tensor:
        self.times.add_(2)
        return self.act(self.norm(x)) * self.times


class Twice(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(x)) + self.norm(2 * x - x.square())


class InTuple(Odd):
    def forward(self, x: Tensor) -> Any:
        h = self.norm(x)
        return {"h": [h, F.silu(h)]}["h"][1]


class ByName(Odd):
    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        return gain * self.act(self.norm(x))


ODD = [
    Draws,
    DrawsByStrength,
    WithoutGradient,
    InGradient,
    Switched,
    Tells,
    Keeps,
    WritesBetween,
    WritesInFunction,
]
ODD += [WritesTheResult, Counts, CountsInBuffer, CountsInPlace, Twice, InTuple, ByName]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ODD)
def test_a_forward_that_does_more_than_answer(
    kind: type[Odd], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fused = kind(), kind()
    x = given()[0]

    def run(module: Odd) -> list[Any]:
        torch.manual_seed(0)
        TOLD.clear()
        one = module(x.clone())
        monkeypatch.setitem(SWITCH, "doubles", True)
        two = module(x.clone())
        monkeypatch.setitem(SWITCH, "doubles", False)
        return [one, two, *module.kept.values(), module.times, len(TOLD), torch.rand(2)]

    with MODES[mode]():
        TOLD.clear()
        torch.manual_seed(5)
        before = torch.get_rng_state()
        fuse(fused)
        assert torch.equal(torch.get_rng_state(), before), "fusing drew random numbers"
        assert not TOLD, "fusing ran the forward where that is felt"
        assert int(fused.times) == 0
        assert not fused.kept
        for found, wanted in zip(run(fused), run(plain), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
            if isinstance(wanted, Tensor):
                assert type(found) is Tensor
                assert found.requires_grad == wanted.requires_grad


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_perturbed_attention_is_perturbed(mode: str, fused: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 1, 28, 28, generator=generator), torch.tensor([0.3, 0.7])
    labels = {"class": torch.tensor([1, 7])}
    plain = trilemma.load("mnist")
    twin = plain.with_attention(lambda q, k, v: v)
    with MODES[mode]():
        network = trilemma.load("mnist", fused=fused)
        perturbed = network.with_attention(lambda q, k, v: v)
        torch.testing.assert_close(network(z, t, **labels), plain(z, t, **labels), rtol=0, atol=1e-4)
        torch.testing.assert_close(perturbed(z, t, **labels), twin(z, t, **labels), rtol=0, atol=1e-4)
        difference = (perturbed(z, t, **labels) - network(z, t, **labels)).abs().max()
        assert difference > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_perturbed_attention_guides_alike_in_every_mode(mode: str) -> None:
    options = {"steps": 4, "seed": 3, "cond": {"class": 3}}
    plain = trilemma.sample(
        trilemma.load("mnist"), 2, guidance="perturbed-attention:scale=2", **options
    ).samples
    unguided = trilemma.sample(trilemma.load("mnist"), 2, **options).samples
    with MODES[mode]():
        found = trilemma.sample("mnist", 2, guidance="perturbed-attention:scale=2", **options).samples
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-3)
    assert (found - unguided).abs().max() > 0.3
