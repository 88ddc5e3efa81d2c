"""The hint about editable installs stands where a plugin may be meant, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest

from trilemma.errors import PluginUnavailable
from trilemma.registry import SamplerSpec, catalog
from trilemma.registry.catalog import Catalog
from trilemma.registry.plugin_record import PluginRecord

HINT = "a plugin in editable mode must be installed again after its entry points change"
BUILT_IN = [record for record in catalog().records if record.distribution == "trilemma"]
ANGULAR = PluginRecord(
    "trilemma-angular",
    "1.0",
    "angular",
    "trilemma_angular",
    components=(SamplerSpec(name="angular", target="trilemma_angular:Angular", summary="turns"),),
)
FAILED = dataclasses.replace(ANGULAR, status="failed", reason="it raised", components=())


def refusal(name: str, *others: PluginRecord) -> str:
    with pytest.raises(PluginUnavailable) as caught:
        Catalog([*BUILT_IN, *others]).find("sampler", name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["zzzzzzzz", "my-lab/zzzzzzzz"])
def test_a_name_like_none_may_be_a_plugins_where_there_are_some(name):
    assert refusal(name, ANGULAR).endswith(f"; {HINT}")


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("zzzzzzzz", []),  # nobody's plugin is here
        ("dddim", [ANGULAR]),  # a name of ours is meant
        ("angulal", [ANGULAR]),  # the plugin is here
        ("angular", [FAILED]),  # which says why it is not
        ("zzzzzzzz", [FAILED]),
    ],
)
def test_it_is_left_out_where_it_is_no_help(name, others):
    said = refusal(name, *others)
    assert "editable" not in said
    assert ("did you mean" in said) == (name in ("dddim", "angulal"))
    assert ("it raised" in said) == (name == "angular")
