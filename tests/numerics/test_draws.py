"""Draws on the host are the same in every dtype."""

from __future__ import annotations

import pytest
import torch

from trilemma.numerics.draws import standard_normals


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_dtype_rounds_the_same_draws(dtype: torch.dtype) -> None:
    drawn = standard_normals(torch.empty(3, 2, 5, dtype=dtype), torch.Generator().manual_seed(4))
    expected = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(4))
    assert drawn.dtype == dtype
    assert torch.equal(drawn, expected.to(dtype))
