"""A fused network runs as it is written where PyTorch was measured to be faster, and the report says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.ops import choice, native
from trilemma.ops.choice import NATIVE, PYTORCH, REASONS

pytestmark = pytest.mark.skipif(bool(native.load()), reason=native.load())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.norm, self.act = nn.GroupNorm(4, 8), nn.GroupNorm(4, 8), nn.SiLU()
        self.modulated = nn.GroupNorm(4, 8)
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x = self.convolution(self.act(self.norm(self.plain(x))))
        return self.act(self.modulated(x) * scale + shift)


@pytest.mark.parametrize(("way", "ran"), [(NATIVE, 4), (PYTORCH, 0)])
def test_what_is_left_runs_as_it_is_written(way: int, ran: int) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator) for shape in ((2, 8, 4, 4), (2, 8, 1, 1), (2, 8, 1, 1))]
    network = Block().eval()
    with torch.no_grad(), choice.forced({"conv3x3": way, "group_norm_act": way}):
        expected = network(*given)
        report = trilemma.fuse(network, example=tuple(given))
        found = network(*given)
    assert len(report.fused) == 4
    assert report.ran is not None
    assert sum(report.ran.values()) == ran
    assert {(left.module, left.why) for left in report.as_written} == (
        set() if ran else {(name, REASONS[PYTORCH]) for name in ("plain", "norm", "modulated", "convolution")}
    )
    assert torch.allclose(found, expected, atol=1e-5)
    if not ran:
        assert torch.equal(found, expected)
        # Nor are filters made that are not read.
        assert network.convolution._trilemma_kept is None
