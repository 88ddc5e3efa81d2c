"""The report of a fusion names every module of a kind that fusing knows and that it left, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from trilemma import ops
from trilemma.models.fusion import fuse
from trilemma.models.fusion.swapping import Swapped

pytestmark = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)


class OwnConv(nn.Conv2d):
    pass


class OwnNorm(nn.GroupNorm):
    pass


class OwnSiLU(nn.SiLU):
    pass


class ByItself(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / 2, self.bias, padding=1)


class NormByItself(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias)


class Norm32(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class Block(nn.Module):
    """GroupNorm, then SiLU, called from children."""

    def __init__(self, norm: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.act = norm or nn.GroupNorm(4, 8), act or nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(x))
        return y


class ActsTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z: Tensor = self.act(y) + y
        return z


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, **self.options)


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, mask)


def attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


class ByFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        return attend(x)


class Inherited(Attention):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda *_: None)
    return module


def patched(module: nn.Module) -> nn.Module:
    module.forward = type(module).forward.__get__(module)  # type: ignore[method-assign]
    return module


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def parametrized(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Half())
    return module


def mixed() -> nn.Module:
    norm = nn.GroupNorm(4, 8)
    norm.bias = nn.Parameter(norm.bias.double())
    return norm


def conv(**options: Any) -> nn.Module:
    return nn.Conv2d(**{"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1, **options})


LEFT: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "another kernel": (lambda: conv(kernel_size=1, padding=0), {"": "its kernel is 1×1"}),
    "stride": (lambda: conv(stride=2), {"": "stride (2, 2)"}),
    "dilation": (lambda: conv(dilation=2, padding=2), {"": "dilation (2, 2)"}),
    "groups": (lambda: conv(groups=4), {"": "4 groups"}),
    "LayerNorm": (lambda: nn.LayerNorm(8), {"": "PyTorch's LayerNorm is as fast"}),
    "RMSNorm": (lambda: nn.RMSNorm(8), {"": "no operator computes RMSNorm"}),
    "GELU": (nn.GELU, {"": "no operator computes GELU"}),
    "padding": (lambda: conv(padding=0), {"": "not by one pixel of zeros"}),
    "circular padding": (lambda: conv(padding_mode="circular"), {"": "circular"}),
    "few channels": (lambda: conv(in_channels=3), {"": "3 input channels"}),
    "a convolution in float64": (lambda: conv(dtype=torch.float64), {"": "torch.float64"}),
    "a complex convolution": (lambda: conv(dtype=torch.complex64), {"": "torch.complex64"}),
    "another device": (lambda: conv(device="meta"), {"": "it is on meta"}),
    "a convolution of its own": (lambda: ByItself(8, 8, 3, padding=1), {"": "class ByItself computes it by itself"}),
    "a lazy convolution": (lambda: nn.LazyConv2d(8, 3, padding=1), {"": "LazyConv2d"}),
    "a parametrized convolution": (lambda: parametrized(conv()), {"": "it is parametrized"}),
    "a patched convolution": (lambda: patched(conv()), {"": "replaced on the object"}),
    "one dimension": (lambda: nn.Conv1d(8, 8, 3, padding=1), {"": "its class is Conv1d"}),
    "three dimensions": (lambda: nn.Conv3d(8, 8, 3, padding=1), {"": "its class is Conv3d"}),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 3, padding=1), {"": "its class is ConvTranspose2d"}),
    "no affine map": (lambda: nn.GroupNorm(4, 8, affine=False), {"": "no weight and bias"}),
    "a norm in float64": (lambda: nn.GroupNorm(4, 8).double(), {"": "torch.float64"}),
    "two dtypes": (mixed, {"": "its weight is torch.float32 and its bias torch.float64"}),
    "a norm of its own": (lambda: NormByItself(4, 8), {"": "class NormByItself computes it by itself"}),
    "a parametrized norm": (lambda: parametrized(nn.GroupNorm(4, 8)), {"": "it is parametrized"}),
    "a patched norm": (
        lambda: Block(patched(nn.GroupNorm(4, 8))),
        {"norm": "replaced on the object", "act": "does not follow a GroupNorm"},
    ),
    "an activation alone": (lambda: nn.SiLU(), {"": "does not follow a GroupNorm"}),
    "a subclass of the activation": (lambda: Block(act=OwnSiLU()), {"act": "its class is OwnSiLU, not SiLU"}),
    "a patched activation": (lambda: Block(act=patched(nn.SiLU())), {"act": "replaced on the object"}),
    "an activation in place": (lambda: Block(act=nn.SiLU(inplace=True)), {"act": "works in place"}),
    "a hooked activation": (lambda: Block(act=hooked(nn.SiLU())), {"act": "it has hooks"}),
    "a hooked norm": (lambda: Block(norm=hooked(nn.GroupNorm(4, 8))), {"act": "GroupNorm before it has hooks"}),
    "a norm used twice": (ActsTwice, {"act": "or not that alone"}),
    "an activation after a convolution": (
        lambda: nn.Sequential(conv(), nn.SiLU()),
        {"1": "does not follow a GroupNorm"},
    ),
    "a norm and an activation in lists": (
        lambda: nn.ModuleList([nn.ModuleDict({"norm": nn.GroupNorm(4, 8), "act": nn.SiLU()})]),
        {"0.act": "does not follow a GroupNorm"},
    ),
    "torch's attention": (
        lambda: nn.Sequential(nn.MultiheadAttention(8, 2)),
        {"0": "does all of it in one call"},
    ),
    "a mask": (Masked, {"": "with a mask"}),
    "dropout": (lambda: Attention(dropout_p=0.1), {"": "with dropout"}),
    "causal": (lambda: nn.Sequential(Attention(is_causal=True)), {"0": "causally"}),
    "shared heads": (lambda: Attention(enable_gqa=True), {"": "shared keys and values"}),
    "patched attention": (lambda: patched(Attention()), {"": "replaced on the object"}),
}  # fmt: skip

TAKEN: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, str]]]] = {
    "a block": (Block, [("", "GroupNorm + SiLU")]),
    "a sequence": (lambda: nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU()), [("", "GroupNorm + SiLU")]),
    "a norm by itself": (lambda: nn.GroupNorm(4, 8), [("", "GroupNorm")]),
    "a norm in a list": (lambda: nn.ModuleList([nn.GroupNorm(4, 8)]), [("0", "GroupNorm")]),
    "a norm of a patched owner": (lambda: patched(nn.Sequential(nn.GroupNorm(4, 8))), [("0", "GroupNorm")]),
    "a hooked convolution": (lambda: hooked(conv()), [("", "3×3 convolution")]),
    "a half convolution": (lambda: conv(dtype=torch.bfloat16), [("", "3×3 convolution")]),
    "a subclass": (lambda: OwnConv(8, 8, 3, padding=1), [("", "3×3 convolution")]),
    "a subclass of the norm": (lambda: OwnNorm(4, 8), [("", "GroupNorm")]),
    "a norm in float32": (lambda: Block(Norm32(4, 8)), [("", "GroupNorm + SiLU")]),
    "attention": (Attention, [("", "attention")]),
    "attention of no options": (lambda: Attention(attn_mask=None, is_causal=False), [("", "attention")]),
    "attention by a function": (ByFunction, [("", "attention")]),
    "attention of a base class": (Inherited, [("", "attention")]),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_is_named_with_its_reason(case: str) -> None:
    make, expected = LEFT[case]
    report = fuse(make())
    reasons = {entry.module: entry.why for entry in report.left}
    assert reasons.keys() == expected.keys()
    assert not {name: reasons[name] for name, why in expected.items() if why not in reasons[name]}
    assert not [entry for entry in report.fused if "SiLU" in entry.pattern]


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_taken_is_not_left(case: str) -> None:
    make, expected = TAKEN[case]
    report = fuse(make())
    assert [(entry.module, entry.pattern) for entry in report.fused] == expected
    assert report.left == []


def everything() -> nn.Module:
    """Each of the cases, in containers of containers."""
    cases = [make() for make, _ in (*LEFT.values(), *TAKEN.values())]
    shared = nn.GroupNorm(4, 8), nn.SiLU()
    return nn.ModuleDict(
        {
            "cases": nn.ModuleList(cases),
            "one": Block(*shared),
            "two": Block(*shared),
            "three": ActsTwice(*shared),
        }
    )


def test_every_module_of_a_known_kind_is_fused_or_left() -> None:
    network = everything()
    known = (
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose2d,
        nn.GroupNorm,
        nn.SiLU,
        nn.MultiheadAttention,
        nn.LayerNorm,
        nn.RMSNorm,
        nn.GELU,
    )
    report = fuse(network)
    left = [entry.module for entry in report.left]
    with_activations = {entry.module for entry in report.fused if "SiLU" in entry.pattern}
    assert len(left) == len(set(left))
    counted = 0
    for name, module in network.named_modules():
        if not isinstance(module, (*known, Attention, Masked, ByFunction)):
            continue
        counted += 1
        owner = name.rpartition(".")[0]
        fused = isinstance(module, Swapped) or (isinstance(module, nn.SiLU) and owner in with_activations)
        assert fused != (name in left), name
    assert counted > 50


def test_a_norm_that_is_shared_waits_where_all_owners_go_on_alike() -> None:
    shared = nn.GroupNorm(4, 8), nn.SiLU()
    alike = nn.ModuleDict({"one": Block(*shared), "two": Block(*shared)})
    report = fuse(alike)
    assert [(entry.module, entry.pattern) for entry in report.fused] == [
        ("one", "GroupNorm + SiLU"),
        ("two", "GroupNorm + SiLU"),
    ]
    assert report.left == []


@pytest.mark.parametrize("order", [(Block, ActsTwice), (ActsTwice, Block)])
def test_a_norm_that_is_shared_waits_in_the_owner_that_goes_on_with_it(order: tuple[Any, Any]) -> None:
    shared = nn.GroupNorm(4, 8), nn.SiLU()
    network = nn.Sequential(*(kind(*shared) for kind in order))
    x = torch.randn(2, 8, 3, 3)
    expected = network(x)
    report = fuse(network)
    assert [(entry.module, entry.pattern) for entry in report.fused] == [
        (str(order.index(Block)), "GroupNorm + SiLU")
    ]
    torch.testing.assert_close(network(x), expected)
    assert report.calls == {"group_norm_act": 1 + 1}


def test_fusing_again_finds_the_same_left_and_nothing_to_do() -> None:
    network = everything()
    first = fuse(network)
    second = fuse(network)
    assert second.fused == []
    assert second.left == first.left


def test_the_text_names_a_few_modules_of_each_reason() -> None:
    text = str(fuse(nn.Sequential(*(conv(kernel_size=1, padding=0) for _ in range(5)))))
    assert text == "fused nothing\nleft 0, 1, 2 and 2 more: its kernel is 1×1, not 3×3"
