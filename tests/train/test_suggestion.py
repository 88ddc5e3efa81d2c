"""Recipes for data come from the data sets that suggest them, whoever brings those."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from trilemma.errors import DataError, OutputError, PluginUnavailable
from trilemma.registry import DatasetSpec, PluginRecord
from trilemma.registry.catalog import Catalog
from trilemma.train import suggestion
from trilemma.train.suggestion import Suggestion, Wish, is_data, suggested, write_recipe


def spec(name: str, target: str) -> DatasetSpec:
    return DatasetSpec(name=name, target="x:Y", summary="s", suggestion=target)


@pytest.fixture
def makers(monkeypatch):
    """Lets data sets of third parties suggest, by name of function."""
    module = types.ModuleType("some_makers")
    monkeypatch.setitem(sys.modules, "some_makers", module)

    def install(**functions):
        for name, function in functions.items():
            setattr(module, name, function)
        specs = tuple(spec(name, f"some_makers:{name}") for name in functions)
        record = PluginRecord("theirs", "1", "theirs", "theirs.register", components=specs)
        monkeypatch.setattr(suggestion, "catalog", lambda: Catalog([record]))

    return install


def refusing(wish: Wish) -> Suggestion:
    raise DataError(f"{wish.source} holds none of mine; give another")


def making(wish: Wish) -> Suggestion:
    return Suggestion("steps = 1", f"{wish.name} in {wish.minutes:g} minutes")


def test_the_first_that_knows_the_data_makes_the_recipe(makers, tmp_path):
    makers(a=refusing, b=making)
    assert suggested(Wish(tmp_path, "x", 2)) == Suggestion("steps = 1", "x in 2 minutes")


def test_where_none_does_the_first_says_why(makers, tmp_path):
    makers(a=refusing)
    with pytest.raises(DataError, match="holds none of mine"):
        suggested(Wish(tmp_path, "x"))
    makers()
    with pytest.raises(PluginUnavailable, match="no data set that is installed suggests recipes"):
        suggested(Wish(tmp_path, "x"))


@pytest.mark.parametrize(("value", "kind"), [("no colon", ValueError), ("a:b c", ValueError), (5, TypeError)])
def test_a_suggestion_names_a_function(value, kind):
    with pytest.raises(kind, match="suggestion"):
        spec("x", value)


@pytest.mark.parametrize(
    ("name", "content", "data"),
    [
        ("recipe.toml", b"steps = 1", False),
        ("none", None, False),
        ("damaged.zip", b"no zip", True),
        ("packed", b"PK\x05\x06" + 18 * b"\0", True),
        ("x" * 300, None, False),
    ],
)
def test_what_is_data_and_what_a_recipe(tmp_path, name, content, data):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert is_data(tmp_path / name) is data
    assert is_data(tmp_path)


def test_a_recipe_takes_no_place_that_is_taken(tmp_path):
    path = tmp_path / "deep" / "recipe.toml"
    write_recipe("steps = 1\n", path)
    with pytest.raises(OutputError, match="exists; choose another --out"):
        write_recipe("steps = 2\n", path)
    assert path.read_text() == "steps = 1\n"
    write_recipe("steps = 3\n", path, force=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["recipe.toml"]
    assert path.read_text() == "steps = 3\n"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_recipe("steps = 1\n", Path(tmp_path / "file" / "recipe.toml"))
