"""A fused U-Net answers alike under every combination of conditions, and trains as before."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.told_unet import CONDITIONS, VALUES, randomised, state, told, unet
from trilemma import ops
from trilemma.models.fusion import fuse
from trilemma.models.fusion.swapping import Swapped
from trilemma_plugins.unet.unet import UNet

pytestmark = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)

SUBSETS = [subset for count in range(6) for subset in combinations(CONDITIONS, count)]


def network(subset: tuple[str, ...], **options: Any) -> UNet:
    sizes = {"channels": (16, 32), "attention": (8,), "transformer": (4,), **options}
    return randomised(unet(*(CONDITIONS[kind] for kind in subset), **sizes))


def asked(net: UNet, subset: tuple[str, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    cond = {CONDITIONS[kind].name: [*VALUES[kind], None] for kind in subset}
    return *state(3), told(net, 3, **cond)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_combination_of_conditions_is_answered_alike(subset):
    net = network(subset, time="add" if len(subset) % 2 else "adagn")
    z, t, cond = asked(net, subset)
    with torch.inference_mode():
        expected = net(z, t, **cond)
        report = fuse(net)
        found = net(z, t, **cond)
    assert not torch.equal(found, expected)  # the operators did run
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    patterns = [entry.pattern for entry in report.fused]
    # Three of pixels, then two in each of four transformer blocks or, without a context, one.
    assert patterns.count("attention") == 3 + 4 * (1 + ("sequence" in subset))


def test_attention_to_the_context_goes_to_the_operator(monkeypatch):
    seen = []
    attention = ops.attention

    def counted(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen.append(k.shape[2])
        return attention(q, k, v, **options)

    monkeypatch.setattr(ops, "attention", counted)
    net = network(("sequence",))
    z, t, cond = asked(net, ("sequence",))
    fuse(net)
    with torch.inference_mode():
        net(z, t, **cond)
    assert sorted(seen) == [6] * 4 + [16] * 4 + [64] * 3


def test_the_report_names_every_module_that_was_left():
    net = network(tuple(CONDITIONS))
    report = fuse(net)
    left = {entry.module: entry.why for entry in report.left}
    activations = {entry.module for entry in report.fused if "SiLU" in entry.pattern}
    for name, module in net.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert "PyTorch's LayerNorm is as fast" in left[name]
        if isinstance(module, nn.GELU):
            assert name not in left
            assert name.rpartition(".")[0] in {
                entry.module for entry in report.fused if entry.pattern == "GEGLU"
            }
        elif isinstance(module, nn.Conv2d | nn.GroupNorm):
            assert isinstance(module, Swapped) != (name in left), name
        elif isinstance(module, nn.SiLU):
            assert (name in left) != (name.rpartition(".")[0] in activations), name
    assert "kernel is 1×1" in left["down.0.1.qkv"]


def test_training_goes_on_as_before():
    subset = tuple(CONDITIONS)
    plain = network(subset).train().requires_grad_(True)
    fused = copy.deepcopy(plain)
    fuse(fused)
    z, t, cond = asked(plain, subset)
    losses = []
    for net in (plain, fused):
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            loss = (net(z, t, **cond) - 1).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    for (name, found), expected in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
