"""trilemma plugins: list and show."""

from __future__ import annotations

import json

import pytest

from trilemma.cli.app import main
from trilemma.registry import catalog
from trilemma.registry.building import import_target
from trilemma.registry.options import option_parameters
from trilemma.registry.source import Option, read_source


@pytest.fixture
def output(capsys):
    def run(*arguments):
        assert main(["plugins", *arguments]) == 0
        said, error = capsys.readouterr()
        assert error == ""
        return said

    return run


def test_the_list_names_every_component(output):
    said = output()
    for component in catalog().components():
        assert any(line.split()[:2] == [component.spec.kind, component.address] for line in said.splitlines())


def test_plugins_alone_is_the_list(output):
    assert output() == output("list")
    assert output("--json", "--kind", "sampler") == output("list", "--kind", "sampler", "--json")


def test_json_is_the_list(output):
    listed = json.loads(output("--json"))
    assert {component["name"] for component in listed["components"] if component["kind"] == "sampler"} >= {
        "ddim",
        "ddpm",
    }
    assert all(
        record["status"] == "ok" for record in listed["plugins"] if record["distribution"] == "trilemma"
    )


def test_a_kind_is_picked(output):
    listed = json.loads(output("list", "--kind", "guidance", "--json"))
    assert {component["kind"] for component in listed["components"]} == {"guidance"}


def test_show_tells_the_options(output):
    said = output("show", "ddim")
    assert "arXiv:2010.02502" in said
    assert "'trailing'" in said
    shown = json.loads(output("show", "ddim", "--json"))["components"][0]
    assert [(option["name"], option["default"]) for option in shown["options"]] == [
        ("eta", "0.0"),
        ("grid", "'trailing'"),
        ("clip", "None"),
    ]


def test_show_tells_what_a_plugin_brings(output):
    assert "command sample" in output("show", "cli")


def test_show_of_an_unknown_name(capsys):
    assert main(["plugins", "show", "dddim"]) == 3
    said, error = capsys.readouterr()
    assert said == ""
    assert error.startswith("error: unknown component or plugin 'dddim'; did you mean 'ddim'")


@pytest.mark.parametrize(
    "component",
    [
        entry
        for entry in catalog().components()
        if entry.built_in and entry.spec.kind not in ("model", "command")
    ],
    ids=lambda entry: f"{entry.spec.kind}-{entry.address}",
)
def test_options_read_from_source_are_those_of_the_constructor(component):
    source = read_source(component.spec.target)
    found = option_parameters(import_target(component))
    parameters = {name: p for name, p in found.items() if p.kind is not p.VAR_KEYWORD}
    assert source is not None
    assert [option.name for option in source.options] == list(parameters)
    for option in source.options:
        default = parameters[option.name].default
        assert (option.default is None) == (default is parameters[option.name].empty)


def test_source_is_read_through_imports_inheritance_and_keywords(tmp_path, monkeypatch):
    package = tmp_path / "far_away"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise AssertionError('must not be imported')\nfrom .deep import Child\n"
    )
    (package / "base.py").write_text(
        "import dataclasses\nclass Plain:\n    kind: str = 'x'\n"
        "@dataclasses.dataclass\nclass Base(Plain):\n    a: int\n    b: float = 1.0\n"
    )
    (package / "deep.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom far_away.base import Base as Parent\n"
        "@dataclass(frozen=True)\nclass Child(Parent):\n"
        "    '''One line.\n\n    Args:\n        a: first,\n            long.\n        b, c: both.\n\n"
        "    Raises:\n        E: x\n    '''\n"
        "    c: str = 'z'\n    b: float = 2.0\n    order: ClassVar[int] = 3\n"
        "def function(x, *, y: int = 3): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in ("far_away.deep:Child", "far_away:Child"):
        source = read_source(target)
        assert source is not None
        assert source.options == (
            Option("a", None, "int", "first, long."),
            Option("b", "2.0", "float", "both."),
            Option("c", "'z'", "str", "both."),
        )
    function = read_source("far_away.deep:function")
    assert function is not None
    assert function.options == (Option("x", None), Option("y", "3", "int"))
    assert read_source("far_away.nowhere:X") is None
    assert read_source("math:sqrt") is None
