"""Weights from moments."""

from fractions import Fraction

import pytest

from trilemma.numerics.vandermonde import vandermonde


@pytest.mark.parametrize("nodes", [[0.0], [0.0, -0.7], [0.0, -0.7, -1.9], [1.0, 0.0, -0.4, -2.5]])
def test_the_moments_are_met(nodes):
    moments = [0.3, -1.2, 2.0, 0.7][: len(nodes)]
    weights = vandermonde(nodes, moments)
    for k, moment in enumerate(moments):
        assert sum(w * x**k for w, x in zip(weights, nodes, strict=True)) == pytest.approx(moment, abs=1e-14)


def test_it_is_exact_in_exact_numbers():
    nodes = [Fraction(0), Fraction(-1, 3), Fraction(-5, 2)]
    wanted = [Fraction(1, 7), Fraction(3, 2), Fraction(-2, 9)]
    moments = [sum(w * x**k for w, x in zip(wanted, nodes, strict=True)) for k in range(3)]
    assert vandermonde(nodes, moments) == wanted
