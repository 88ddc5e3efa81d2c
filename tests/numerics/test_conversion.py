"""Conversions between parameterizations against their definitions."""

import itertools

import pytest
import torch

from trilemma.errors import UsageError
from trilemma.numerics.conversion import PARAMETERIZATIONS, convert


def predictions(x0, eps, alpha, sigma):
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma, "flow": eps - x0}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PARAMETERIZATIONS, repeat=2)))
@pytest.mark.parametrize("preserving", [True, False])
def test_every_pair_agrees_with_the_definitions(source, target, preserving):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    alpha = torch.rand(50, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    sigma = (1 - alpha.square()).sqrt() if preserving else alpha * 3 + 0.1
    known = predictions(x0, eps, alpha, sigma)
    p, q = convert(source, target, alpha, sigma)
    torch.testing.assert_close(p * (alpha * x0 + sigma * eps) + q * known[source], known[target])


def test_v_to_x0_is_the_rotation_of_progressive_distillation():
    alpha, sigma = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    p, q = convert("v", "x0", alpha, sigma)
    assert float(p) == pytest.approx(0.6, abs=1e-15)
    assert float(q) == pytest.approx(-0.8, abs=1e-15)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_identity_is_exact_even_where_alpha_vanishes(name):
    alpha, sigma = (
        torch.tensor([1e-12, 0.3], dtype=torch.float64),
        torch.tensor([1.0, 0.9], dtype=torch.float64),
    )
    p, q = convert(name, name, alpha, sigma)
    assert p.tolist() == [0.0, 0.0]
    assert q.tolist() == [1.0, 1.0]


def test_unknown_parameterization_is_refused():
    one = torch.ones((), dtype=torch.float64)
    with pytest.raises(UsageError, match="x0, eps, v, score"):
        convert("x0", "velocity", one, one)
