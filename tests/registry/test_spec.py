"""Spec strings say what they mean and mean what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.errors import UsageError
from trilemma.registry.spec import Spec, format_spec, format_value, is_literal, parse_spec, parse_value

names = st.from_regex(r"[a-z][a-z0-9._-]{0,8}(/[a-z][a-z0-9-]{0,5})?", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}x", fullmatch=True)
atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(names, st.dictionaries(keys, values, max_size=4))
def test_formatting_and_parsing_are_inverse(name, options):
    assert same(parse_spec(format_spec(name, options)).options, options)
    assert parse_spec(format_spec(name, options)).name == name


@given(names, st.dictionaries(keys, values, min_size=1, max_size=4))
def test_both_forms_mean_the_same(name, options):
    body = ", ".join(f"{key} = {format_value(value)}" for key, value in options.items())
    assert same(parse_spec(f" {name}( {body} ) ").options, options)


@given(names, st.dictionaries(keys, values, max_size=4))
def test_the_canonical_form_is_a_fixed_point(name, options):
    text = format_spec(name, options)
    assert str(parse_spec(text)) == text


@given(st.text(max_size=40))
def test_any_text_is_a_spec_or_a_usage_error(text):
    try:
        spec = parse_spec(text)
    except UsageError:
        return
    assert same(parse_spec(str(spec)).options, spec.options)


def same(a, b):
    """Equality that tells 1 from 1.0 and True, and -0.0 from 0.0."""
    return repr(a) == repr(b)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1.5e-3", -1.5e-3),
        ("None", None),
        ("True", True),
        ("true", True),
        ("false", False),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("[1, inf]", [1, math.inf]),
        ("trailing", "trailing"),
        ("min-snr", "min-snr"),
        ("/data/mnist.zip", "/data/mnist.zip"),
        ("'a, b'", "a, b"),
        ("(1, 2)", (1, 2)),
        ("{'a': [1]}", {"a": [1]}),
        ("'3'", "3"),
        ("a=b", "a=b"),
    ],
)
def test_values(text, value):
    assert same(parse_value(text), value)
    assert same(parse_value(format_value(value)), value)


def test_nan_is_a_value():
    assert math.isnan(parse_value("nan"))
    assert format_value(math.nan) == "nan"


@pytest.mark.parametrize("word", ["true", "None", "inf", "1e5", "0x10", "nan", "a b", "a,b", "", "'", "("])
def test_strings_that_read_as_something_else_are_quoted(word):
    assert format_value(word) == repr(word)
    assert parse_value(format_value(word)) == word


def test_nested_commas_brackets_and_quotes_stay_together():
    spec = parse_spec("""unet:channels=(32, [64, 96]),note='a,b=(c',path="it's",time=add""")
    assert spec == Spec("unet", {"channels": (32, [64, 96]), "note": "a,b=(c", "path": "it's", "time": "add"})


def test_escaped_quotes_do_not_end_a_string():
    assert parse_spec(r"a:b='x\',y',c=1").options == {"b": "x',y", "c": 1}


@pytest.mark.parametrize("text", ["ddim", " ddim ", "ddim()", "ddim( )"])
def test_a_name_alone_has_no_options(text):
    assert parse_spec(text) == Spec("ddim")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no name"),
        (":eta=0", "has no name"),
        ("ddim:", "not of the form key=value"),
        ("ddim:eta", "'eta' has no value"),
        ("ddim:eta=", "'eta' has no value"),
        ("ddim:=1", "not of the form key=value"),
        ("ddim:eta=0,", "not of the form key=value"),
        ("ddim:eta=0,eta=1", "'eta' is given twice"),
        ("ddim:0=1", "not of the form key=value"),
        ("ddim:eta=[1", "']' is missing"),
        ("ddim:eta=1]", "']' closes nothing"),
        ("ddim:eta=(1]", "']' closes nothing"),
        ("ddim:grid='a", '"\'" is missing'),
        ("ddim(eta=1", "cannot follow the name"),
        ("ddim eta=1", "cannot follow the name"),
        ("ddim:grid=a b", "neither a literal nor a bare word"),
        ("ddim:eta=__import__('os')", "neither a literal nor a bare word"),
    ],
)
def test_malformed_specs_name_their_fault(text, fault):
    with pytest.raises(UsageError) as caught:
        parse_spec(text)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_literals_can_be_written():
    assert not is_literal(object())
    assert not is_literal([{1, 2}])
    with pytest.raises(UsageError, match="object cannot stand in a spec"):
        format_spec("x", {"a": object()})
