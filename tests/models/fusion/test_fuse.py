"""Fusing leaves what a network computes, and can be taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trilemma
from trilemma import ops
from trilemma.models.fusion import convolving, fuse, unfuse
from trilemma.models.fusion.swapping import Swapped

needs_native = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)
pytestmark = needs_native


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.norm(x)))


class Modulated(nn.Module):
    """AdaGN as a residual block of guided diffusion writes it."""

    def __init__(self, addcmul: bool) -> None:
        super().__init__()
        self.norm, self.act, self.inject = nn.GroupNorm(2, 8), nn.SiLU(), nn.Linear(5, 16)
        self.addcmul = addcmul

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.inject(embedding)[:, :, None, None].chunk(2, dim=1)
        if self.addcmul:
            return self.act(torch.addcmul(shift, self.norm(x), 1 + scale))
        return self.act(self.norm(x) * (scale + 1) + shift)


class AdaLayerNorm(nn.Module):
    """adaLN as a block of a diffusion transformer writes it; `outside`: 1 is added before the tokens' dimension is."""

    def __init__(self, outside: bool, affine: bool = False) -> None:
        super().__init__()
        self.norm, self.inject = nn.LayerNorm(8, elementwise_affine=affine), nn.Linear(5, 16)
        self.outside = outside

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = self.inject(embedding).chunk(2, dim=1)
        if self.outside:
            return self.norm(x) * (1 + scale)[:, None, :] + shift[:, None, :]
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class Single(nn.Module):
    """adaLN of a table and an embedding, as PixArt's blocks: an argument that may be left out, and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.table = nn.LayerNorm(8, elementwise_affine=False), nn.Parameter(torch.randn(2, 8))

    def forward(self, x: Tensor, mask: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        assert mask is None
        told = embedding.repeat(1, 4)[:, :16].reshape(x.shape[0], 2, 8)  # type: ignore[union-attr]
        shift, scale = (self.table[None] + told).chunk(2, dim=1)
        h = self.norm(x)
        return h * (1 + scale) + shift


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Deciding(nn.Module):
    """A forward that looks at values and so cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return y if float(y.detach().sum()) > 1e9 else F.silu(y)


CASES = {
    "GroupNorm + SiLU": (Plain, (3, 8, 6, 6)),
    "GroupNorm + scale and shift + SiLU": (lambda: Modulated(False), (3, 8, 6, 6)),
    "attention": (Attending, (3, 10, 16)),
    "GroupNorm": (Deciding, (3, 8, 6, 6)),
}


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def inputs(module: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    told = torch.randn(shape[0], 5, generator=torch.Generator().manual_seed(2))
    if isinstance(module, Single):
        return (x, None, told)  # type: ignore[return-value]
    return (x, told) if isinstance(module, Modulated | AdaLayerNorm) else (x,)


@pytest.mark.parametrize("pattern", list(CASES))
def test_each_pattern_is_found_and_gives_the_same(pattern: str) -> None:
    make, shape = CASES[pattern]
    module = randomised(make())
    arguments = inputs(module, shape)
    expected = module(*arguments)
    report = fuse(module)
    patterns = [entry.pattern for entry in report.fused if entry.pattern != "3×3 convolution"]
    assert patterns == [pattern]
    assert any(isinstance(part, Swapped) for part in module.modules())
    torch.testing.assert_close(module(*arguments), expected, rtol=0, atol=1e-5)


ADAPTIVE = {
    "inside": lambda: AdaLayerNorm(False),
    "outside": lambda: AdaLayerNorm(True),
    "with weight and bias": lambda: AdaLayerNorm(False, affine=True),
    "by an argument that may be left out": Single,
}


@pytest.mark.parametrize("case", ADAPTIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_norms_wait_for_their_modulation(case: str, dtype: torch.dtype) -> None:
    module = randomised(ADAPTIVE[case]()).to(dtype)
    arguments = [None if given is None else given.to(dtype) for given in inputs(module, (3, 10, 8))]
    # Tokens of a feature map, as a convolution leaves them.
    arguments[0] = arguments[0].mT.contiguous().mT
    arguments[0].requires_grad_()
    expected = module(*arguments)
    wanted = torch.autograd.grad(expected.square().sum(), [arguments[0], *module.parameters()])
    report = fuse(module)
    assert [(entry.module, entry.pattern) for entry in report.fused] == [("", "LayerNorm + scale and shift")]
    found = module(*arguments)
    assert report.ran == {"LayerNorm + scale and shift": 1}
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(found.square().sum(), [arguments[0], *module.parameters()])
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance * float(other.abs().max()))
    unfuse(module)
    assert torch.equal(module(*arguments), expected)


def test_few_numbers_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    module = randomised(AdaLayerNorm(False))
    report = fuse(module, example=inputs(module, (3, 10, 8)))
    assert report.ran == {}
    assert [(entry.module, entry.why) for entry in report.as_written] == [
        ("norm", "it normalises so few numbers that PyTorch is as fast")
    ]
    report = fuse(randomised(Gated(None)), example=torch.zeros(3, 10, 8))
    assert [entry.why for entry in report.as_written] == ["it gates so few numbers that PyTorch is as fast"]


def test_a_norm_without_modulation_is_left_to_torch() -> None:
    module = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
    report = fuse(module)
    assert report.fused == []
    assert "PyTorch's LayerNorm is as fast" in report.left[0].why
    assert type(module[0]) is nn.LayerNorm


class Gated(nn.Module):
    """As a feed-forward part of a transformer gates: by a function, or by a module."""

    def __init__(self, act: nn.Module | None, silu: bool = False, swapped: bool = False) -> None:
        super().__init__()
        self.proj, self.act, self.swapped = nn.Linear(8, 24), act, swapped
        self.function = F.silu if silu else F.gelu

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        activated = self.function(gate) if self.act is None else self.act(gate)
        y: Tensor = activated * value if self.swapped else value * activated
        return y


GATES: dict[str, tuple[Any, str]] = {
    "a function": (lambda: Gated(None), "GEGLU"),
    "a function, the other way round": (lambda: Gated(None, silu=True, swapped=True), "SwiGLU"),
    "a module": (lambda: Gated(nn.GELU()), "GEGLU"),
    "SwiGLU of a module": (lambda: Gated(nn.SiLU()), "SwiGLU"),
}


@pytest.mark.parametrize("case", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gates_are_multiplied_at_once(case: str, dtype: torch.dtype) -> None:
    make, pattern = GATES[case]
    module = randomised(make()).to(dtype)
    x = torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    leaves = [x, *module.parameters()]
    expected = module(x)
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    report = fuse(module)
    assert [(entry.module, entry.pattern) for entry in report.fused] == [("", pattern)]
    assert report.left == []
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            found = module(x)
        assert report.ran == {pattern: 1}
        assert report.as_written == []
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert type(found) is Tensor
    gradients = torch.autograd.grad(found.square().sum(), leaves)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance * float(other.abs().max()))
    unfuse(module)
    assert torch.equal(module(x), expected)


class Uses(Gated):
    """Gates that come to other ends than those that a trace of the module has seen."""

    way = "product"

    def forward(self, x: Tensor) -> Any:
        value, gate = self.proj(x).chunk(2, dim=-1)
        activated = F.gelu(gate)
        if self.way == "product":
            return value * activated
        if self.way == "twice":
            return activated + value * activated
        if self.way == "another":
            return (value + 1) * activated
        return {"number": 2 * activated, "returned": activated, "halves": gate * activated}[self.way]


@pytest.mark.parametrize("way", ["product", "twice", "another", "number", "returned", "halves"])
@pytest.mark.parametrize("grad", [False, True])
def test_gates_of_other_ends_are_right(way: str, grad: bool) -> None:
    module = randomised(Uses(None))
    x = torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(1))
    fuse(module)
    with torch.set_grad_enabled(grad):
        module.way = way
        found = module(x)
        assert type(found) is Tensor
        unfuse(module)
        torch.testing.assert_close(found, module(x), rtol=1e-5, atol=1e-5)


def test_a_hooked_activation_is_called_as_it_is() -> None:
    module, seen = randomised(Gated(nn.SiLU())), []
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    fuse(module)
    module.act.register_forward_hook(lambda act, args, y: (seen.append(type(y)), 2 * y)[1])
    found = module(x)
    unfuse(module)
    torch.testing.assert_close(found, module(x))
    assert seen == [Tensor, Tensor]


def test_addcmul_is_a_modulation_too() -> None:
    module = randomised(Modulated(True))
    arguments = inputs(module, (3, 8, 6, 6))
    expected = module(*arguments)
    assert str(fuse(module)) == "fused 1 × GroupNorm + scale and shift + SiLU"
    torch.testing.assert_close(module(*arguments), expected, rtol=0, atol=1e-5)


def test_unfuse_takes_everything_back() -> None:
    module = nn.Sequential(randomised(Plain()), randomised(Deciding()))
    before = dict(module.named_parameters())
    keys = list(module.state_dict())
    x = torch.randn(2, 8, 5, 5)
    expected = module(x)
    fuse(module)
    fuse(module)  # twice is once
    assert list(module.state_dict()) == keys
    assert all(parameter is before[name] for name, parameter in module.named_parameters())
    unfuse(module)
    assert not any(isinstance(part, Swapped) for part in module.modules())
    assert torch.equal(module(x), expected)


def test_gradients_are_the_same() -> None:
    module = randomised(Plain())
    x = torch.randn(2, 8, 5, 5)
    wanted = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    fuse(module)
    found = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_new_weights_are_seen_and_copies_are_their_own() -> None:
    module = randomised(Plain())
    fuse(module)
    other = copy.deepcopy(module)
    x = torch.randn(2, 8, 5, 5)
    before = other(x)
    with torch.no_grad():
        module.norm.weight.zero_()
        module.norm.bias.zero_()
    assert torch.equal(module(x), module.conv(torch.zeros_like(x)))
    assert torch.equal(other(x), before)


def test_what_cannot_be_traced_is_named() -> None:
    report = fuse(Deciding())
    assert "the network itself: its forward cannot be traced" in str(report)


def test_another_mode_or_other_arguments_run_the_modules_own_forward() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(4, 8)

        def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
            y = F.silu(self.norm(x))
            if self.training:
                y = 2 * y
            return y if shift is None else y + shift

    module = Optional().eval()
    x = torch.randn(2, 8, 4, 4)
    plain = module(x)
    assert len(fuse(module).fused) == 1
    torch.testing.assert_close(module(x, torch.ones(())), plain + 1)
    torch.testing.assert_close(module(x, shift=torch.ones(())), plain + 1)
    torch.testing.assert_close(module.train()(x), 2 * plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_of_3_by_3(dtype: torch.dtype) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),  # too few channels to pay
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Conv2d(24, 16, 3, padding="same", bias=False),
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 8, 1),
    )
    module = randomised(module).to(dtype)
    x = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        expected = module(x)
        report = fuse(module)
        found = module(x)
    assert [entry.module for entry in report.fused] == ["1", "2"]
    assert [entry.module for entry in report.left] == ["0", "3", "4", "5", "6", "7"]
    if dtype == torch.float32:
        assert not torch.equal(found, expected)  # the operator did run
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_convolution_sees_what_is_written_into_its_weights_past_autograd() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    x = torch.randn(1, 8, 8, 8)
    fuse(module)
    with torch.no_grad():
        before = module(x)
        module[0].weight.data.mul_(2)  # leaves the version of the weights as it was
        module[0].bias.data.mul_(2)
        torch.testing.assert_close(module(x), 2 * before)
        module.to(torch.bfloat16)
        torch.testing.assert_close(module(x.bfloat16()).float(), 2 * before, rtol=2e-2, atol=2e-2)


def one_element(weight: Tensor) -> None:
    weight[3, 5, 1, 2] = 4


def one_channel(weight: Tensor) -> None:
    weight.data[3].mul_(2)


def by_numpy(weight: Tensor) -> None:
    weight.detach().numpy()[:] *= 2


def turned(weight: Tensor) -> None:
    weight.data = weight.data.transpose(0, 1)


def elsewhere(weight: Tensor) -> None:
    weight.data = 2 * weight.data


def flipped(weight: Tensor) -> None:
    weight.data = weight.data.flip(2)


WRITES = (one_element, one_channel, by_numpy, turned, elsewhere, flipped)


@pytest.mark.parametrize("write", WRITES)
def test_filters_are_kept_until_the_weights_change(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(
        convolving, "transformed", lambda weight: made.append(1) or ops.convolution.transformed(weight)
    )
    plain, x = randomised(nn.Conv2d(8, 8, 3, padding=1)), torch.randn(1, 8, 8, 8)
    fused = copy.deepcopy(plain)
    fuse(fused)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fused(x), plain(x), rtol=0, atol=1e-4)
        assert len(made) == 1
        write(plain.weight)
        write(fused.weight)
        for _ in range(2):
            torch.testing.assert_close(fused(x), plain(x), rtol=0, atol=1e-4)
    assert len(made) == 2


def test_filters_of_weights_of_inference_mode_see_every_write() -> None:
    x = torch.randn(1, 8, 8, 8)
    with torch.inference_mode():
        plain = randomised(nn.Conv2d(8, 8, 3, padding=1))
        fused = copy.deepcopy(plain)
        fuse(fused)
        fused(x)
        for convolution in (plain, fused):
            convolution.weight[3, 5, 1, 2] = 4
        torch.testing.assert_close(fused(x), plain(x), rtol=0, atol=1e-5)


def test_fusing_takes_no_name_that_a_child_may_have() -> None:
    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            q = self.conv(F.silu(self.norm(x)))
            return F.scaled_dot_product_attention(q, q, q)

    plain, fused = Known(), Known()
    fuse(fused)
    for part, other in zip(plain.modules(), fused.modules(), strict=True):
        assert all(name.startswith("_trilemma") for name in set(dir(other)) - set(dir(part)))


def test_a_convolution_under_autocast_answers_in_its_dtype() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    x = torch.randn(1, 8, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = module(x)
        fuse(module)
        found = module(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_a_frozen_convolution_lets_gradients_through() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)).requires_grad_(False)
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(module(x).square().sum(), x)
    fuse(module)
    (found,) = torch.autograd.grad(module(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grad", [False, True])
def test_our_own_network(grad: bool) -> None:
    network = trilemma.load("mnist")
    z, t, labels = torch.randn(3, 1, 28, 28), torch.rand(3), torch.arange(3)
    with torch.inference_mode():
        expected = network(z, t, **{"class": labels})
    with torch.set_grad_enabled(grad):  # its attention runs another formula where gradients are recorded
        report = fuse(network)
    assert sum(entry.pattern == "attention" for entry in report.fused) == 4
    with torch.inference_mode():
        torch.testing.assert_close(network(z, t, **{"class": labels}), expected, rtol=0, atol=1e-5)


def unet_2d(**options: Any) -> nn.Module:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **options,
    )


@pytest.mark.parametrize("modulation", ["default", "scale_shift"])
def test_an_unmodified_unet_of_diffusers(modulation: str) -> None:
    network = unet_2d(resnet_time_scale_shift=modulation).eval().requires_grad_(False)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 500])
    expected = network(x, t).sample
    report = fuse(network)
    patterns = {entry.pattern for entry in report.fused}
    assert {"attention", "GroupNorm + SiLU"} <= patterns
    assert ("GroupNorm + scale and shift + SiLU" in patterns) == (modulation == "scale_shift")
    torch.testing.assert_close(network(x, t).sample, expected, rtol=0, atol=1e-5)


def test_a_conditional_unet_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
    )
    network.eval().requires_grad_(False)
    x, t, text = torch.randn(2, 4, 16, 16), torch.tensor([3, 500]), torch.randn(2, 7, 24)
    expected = network(x, t, text).sample
    report = fuse(network)
    assert sum(entry.pattern == "attention" for entry in report.fused) >= 4
    torch.testing.assert_close(network(x, t, text).sample, expected, rtol=0, atol=1e-5)
