"""trilemma plugins check runs the conformance kit on an installed plugin."""

from __future__ import annotations

import json

FALSE = """
from dataclasses import dataclass
from trilemma.registry import SamplerSpec, hookimpl

@hookimpl
def trilemma_register(registry):
    registry.sampler(SamplerSpec(name="boast", target="boast_sampler:Boast", summary="order 2, it says"))
"""

SAMPLER = """
from trilemma_plugins.ddim.sampler import DDIM

class Boast(DDIM):
    order = 2
"""


def test_a_false_declaration_exits_4(site):
    site.install("boast", FALSE)
    (site.path / "boast_sampler.py").write_text(SAMPLER)
    done = site.trilemma("plugins", "check", "boast:grid=linspace")
    assert done.returncode == 4
    assert "declares order 2, measured" in done.stdout
    assert done.stderr.startswith("error: boast:grid=linspace fails ")
    assert done.stderr.count("\n") == 1


def test_an_honest_one_exits_0(site):
    done = site.trilemma("plugins", "check", "ddim", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert {result["status"] for result in results} == {"passed"}
    assert "order on a Gaussian" in {result["name"] for result in results}


def test_an_unknown_one_exits_3(site):
    done = site.trilemma("plugins", "check", "dddim")
    assert (done.returncode, done.stdout) == (3, "")
    assert "did you mean 'ddim'" in done.stderr
