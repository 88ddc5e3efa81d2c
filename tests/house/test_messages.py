"""Every message is one printable line of less than 300 characters that keeps its cure, whatever it echoes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma import errors
from trilemma.errors import LONGEST_MESSAGE, TrilemmaError, UsageError, nearest, one_line, shown

texts = st.text(st.characters(), max_size=400) | st.sampled_from(
    ["x" * 10**6, "a\nb\r\n", "\x1b[2J", "\udcff", ""]
)


@given(texts, texts, st.text(st.characters(categories=["L"]), max_size=90))
def test_any_message_is_one_short_printable_line(before, after, cure):
    message = str(UsageError(f"option {before!r} is not {after}; give {cure}"))
    assert len(message) <= LONGEST_MESSAGE < 300
    assert message.isprintable()
    assert message.startswith("option ")
    assert message.endswith(f"; give {cure}".rstrip()) or len(cure) > 120


@given(st.recursive(st.none() | st.integers() | texts | st.binary(), st.lists, max_leaves=30))
def test_any_value_is_shown_on_one_short_line(value):
    assert len(shown(value)) <= errors.LONGEST_VALUE
    assert shown(value).isprintable()


@pytest.mark.parametrize(
    "value",
    [10**5000, ["x" * 9] * 10**6, b"\0" * 10**6, {"a": "x" * 10**5}],
    ids=["integer", "list", "bytes", "table"],
)
def test_a_large_value_is_shown_shortly(value):
    assert 0 < len(shown(value)) <= errors.LONGEST_VALUE


def test_a_value_that_cannot_be_shown_is_named():
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    assert shown(Bad()) == "Bad that cannot be shown"


def test_what_is_short_stays_as_it_is():
    message = "class=3 is out of range; give an integer from 0 to 2"
    assert str(TrilemmaError(message)) == message
    assert one_line("a\n  b") == "a b"
    assert TrilemmaError(1, "a\nb").args == (1, "a b")
    assert nearest("stepz" + "z" * 10**6, ["steps"]) == []
    assert nearest("stepz", ["steps", "seed"]) == ["steps"]


def test_what_is_long_keeps_its_beginning_and_its_cure():
    message = str(UsageError(f"grid={'x' * 10**6} is unknown; known grids: uniform, trailing"))
    assert message.startswith("grid=xxx")
    assert "…" in message
    assert message.endswith("is unknown; known grids: uniform, trailing")
