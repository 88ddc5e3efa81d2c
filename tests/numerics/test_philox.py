"""Philox 4x32-10 against its published vectors and against exact integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trilemma.numerics.philox import philox

WORD = st.integers(0, 2**32 - 1)

# Random123, kat_vectors: counter, key, output.
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def exact_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The definition, in Python's unbounded integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second % 2**32, (first >> 32) ^ c3 ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(int(word) for word in philox(counter, key)) == expected


@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD))
def test_equals_exact_integers(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    assert tuple(int(word) for word in philox(counter, key)) == exact_philox(counter, key)


def test_broadcasts_words() -> None:
    rows, columns = torch.arange(3)[:, None], torch.arange(5)
    words = philox((columns, 7, rows, 9), (1, 2))
    for word, lane in zip(words, range(4), strict=True):
        assert word.shape == (3, 5)
        assert int(word[2, 4]) == exact_philox((4, 7, 2, 9), (1, 2))[lane]
