"""The report of a fusion counts the operators that the dispatcher sees."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import trilemma
from support.fused_networks import CASES, drawn
from trilemma import ops
from trilemma.errors import UsageError
from trilemma.models.fusion.recording import Recorded
from trilemma.models.fusion.swapping import Swapped

pytestmark = pytest.mark.skipif(
    any(
        ops.OPERATORS[name].why_not_native()
        for name in ("group_norm_act", "layer_norm", "attention", "conv3x3")
    ),
    reason="the native libraries were not built",
)


class Dispatched(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted[func.name()] += 1
        return func(*args, **(kwargs or {}))

    def ours(self) -> dict[str, int]:
        return {
            name.partition("::")[2]: n for name, n in self.counted.items() if name.startswith("trilemma::")
        }

    def attended(self) -> int:
        return sum(n for name, n in self.counted.items() if "scaled_dot_product" in name)


# How often each operator runs in a call, and attention that torch computes.
EXPECTED: dict[str, tuple[dict[str, int], int]] = {
    "guided": ({"group_norm_act": 15, "conv3x3": 13}, 0),
    "ViT": ({}, 0),
    "ViT of transformers": ({"attention": 2}, 0),
    "UNet2D": ({"group_norm_act": 21, "attention": 4, "conv3x3": 18}, 0),
    "UNet2DCondition": ({"group_norm_act": 21, "attention": 8, "conv3x3": 18, "glu": 4}, 0),
    "AutoencoderKL decoder": ({"group_norm_act": 14, "attention": 1, "conv3x3": 14}, 0),
    "DiT": ({"attention": 2, "layer_norm": 4}, 0),
    "SD3": ({"attention": 2, "layer_norm": 8}, 0),
    "Flux": ({"attention": 2, "layer_norm": 4}, 0),
    "PixArt": ({"attention": 4, "layer_norm": 5}, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_example_counts_what_is_dispatched(name: str) -> None:
    case = CASES[name]
    network = case.network()
    with torch.no_grad():
        with Dispatched() as plain:
            case.run(network)
        with Dispatched() as seen:
            report = trilemma.fuse(network, example=lambda: case.run(network))
    calls, attended = EXPECTED[name]
    assert report.calls == seen.ours() == calls
    assert seen.attended() == attended
    assert report.as_written == []
    assert not any(name.endswith("native_group_norm") for name in seen.counted)
    convolutions = plain.counted["aten::convolution"] - seen.counted["aten::convolution"]
    assert convolutions == calls.get("conv3x3", 0)


def test_the_first_call_counts_too_and_no_later_one() -> None:
    case = CASES["guided"]
    network = case.network()
    report = trilemma.fuse(network)
    assert report.calls is None
    assert "\nran" not in str(report)
    assert not isinstance(copy.deepcopy(network), Recorded)
    with torch.no_grad():
        for _ in range(2):
            case.run(network)
            assert report.calls == EXPECTED["guided"][0]
            assert not isinstance(network, Recorded)
    assert report.ran == {
        "GroupNorm + SiLU": 7,
        "GroupNorm + scale and shift + SiLU": 6,
        "GroupNorm": 2,
        "3×3 convolution": 13,
    }
    assert "ran 7 × GroupNorm + SiLU, 13 × 3×3 convolution, 6 × GroupNorm + scale" in str(report)
    trilemma.unfuse(network)
    assert not any(isinstance(part, Swapped) for part in network.modules())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_and_pickles_are_fused_again(way: Any) -> None:
    case = CASES["guided"]
    network = case.network()
    trilemma.fuse(network)
    for _ in range(2):
        with torch.no_grad(), Dispatched() as seen:
            case.run(way(network))
        assert seen.ours() == EXPECTED["guided"][0]
        with torch.no_grad():
            case.run(network)


def test_a_hook_is_given_a_tensor() -> None:
    network, seen = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU()), []
    network[0].register_forward_hook(lambda module, args, y: seen.append(type(y)))
    trilemma.fuse(network)
    network(drawn(1, 8, 4))
    assert seen == [Tensor]


@pytest.mark.parametrize("example", [drawn(1, 8, 4, 4), (drawn(1, 8, 4, 4),), {"x": drawn(1, 8, 4, 4)}])
def test_an_example_is_a_call(example: Any) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(nn.functional.silu(self.norm(x)))

    report = trilemma.fuse(Block(), example=example)
    assert report.calls == {"group_norm_act": 1, "conv3x3": 1}


class Standardised(nn.Conv2d):
    """A convolution with weights of its own making."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, mask)


def test_places_that_ran_as_written_are_told_with_the_reason() -> None:
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), Standardised(8, 8, 3, padding=1), nn.GroupNorm(4, 8)
    )
    x = drawn(1, 8, 4, 4)
    expected = network(x)
    report = trilemma.fuse(network)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)
    assert report.calls == {"group_norm_act": 1}
    assert {entry.module: entry.why for entry in report.as_written} == {
        "0": "its weights are trained",
        "1": "its weights are made in each call",
    }
    masked = trilemma.fuse(attending := Masked(), example=(drawn(1, 2, 3, 4), torch.ones(3, 3).bool()))
    assert [entry.why for entry in masked.as_written] == ["it attends with a mask"]
    assert "ran nothing\nran as written the network itself: it attends with a mask" in str(masked)
    assert attending(drawn(1, 2, 3, 4)).shape == (1, 2, 3, 4)


def test_an_example_that_fails_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU())
    with pytest.raises(UsageError, match="does not divide"):
        trilemma.fuse(network, example=drawn(1, 7, 4))
    assert not any(isinstance(part, Swapped) for part in network.modules())
