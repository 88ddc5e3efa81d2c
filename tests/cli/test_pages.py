"""The samplers' pages: those in docs/ are what the samplers say today, and they say everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilemma.cli.app import main
from trilemma.interfaces.sampler import Sampler
from trilemma.lookup import sampler
from trilemma.pages import read_docstring, sampler_page
from trilemma.registry import catalog

DOCS = Path(__file__).resolve().parents[2] / "docs" / "samplers"
SAMPLERS = [entry for entry in catalog().components("sampler") if entry.built_in]


def test_the_pages_in_docs_are_up_to_date(tmp_path, capsys):
    assert main(["plugins", "page", "--out", str(tmp_path)]) == 0
    assert f"{len(SAMPLERS) + 1} pages" in capsys.readouterr().out
    committed = {path.name: path.read_text() for path in DOCS.iterdir()}
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == committed, "run: trilemma plugins page --out docs/samplers"


@pytest.mark.parametrize("component", SAMPLERS, ids=lambda entry: entry.address)
def test_a_page_has_equation_use_options_and_tableau(component):
    page = sampler_page(component)
    for heading in ("Equation", "When to use it", "Options", "Cost and order", "Tableau", "Reference"):
        assert f"\n## {heading}\n" in page
    said = read_docstring(type(sampler(component.address)))
    assert "\n\n    " in said.body, "no formula"
    for name in type(sampler(component.address)).__dataclass_fields__:
        assert said.arguments.get(name), f"{component.address}: option {name} has no meaning"


@pytest.mark.parametrize("component", SAMPLERS, ids=lambda entry: entry.address)
def test_what_options_mean_in_every_sampler_is_said_once(component):
    """At the interface: a sampler that says it of its own `grid` or `clip` says something else."""
    shared = read_docstring(Sampler).arguments
    assert set(shared) == {"grid", "clip"}
    kind = type(sampler(component.address))
    told = [name for name, said in shared.items() if f"{name}: {said[:20]}" in (kind.__doc__ or "")]
    assert not [name for name in told if read_docstring(kind).arguments[name] == shared[name]]


def test_one_page_on_stdout(capsys):
    assert main(["plugins", "page", "heun"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# heun\n")
    assert "| 2 | 0.8 | 1 before |" in out


def test_a_case_of_another_class_shows_its_equation():
    """What a subclass leaves out is its base's; what it says is its own."""

    class Base:
        """Base:

            z = 1

        Use: seldom.

        Args:
            a, b: two
                lines.
            c: base.

        References:
            A paper.
        """

    class Case(Base):
        """A case.

        Use: often.

        Args:
            c: own.
        """

    said = read_docstring(Case)
    assert said.body == "A case.\n\nBase:\n\n    z = 1"
    assert (said.use, said.references) == ("often.", "A paper.")
    assert said.arguments == {"a": "two lines.", "b": "two lines.", "c": "own."}


def test_an_unknown_sampler(capsys):
    assert main(["plugins", "page", "huen"]) == 3
    assert "heun" in capsys.readouterr().err
