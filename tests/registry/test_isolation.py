"""A bad plugin is listed with its reason and breaks nothing else."""

from __future__ import annotations

import json

import pytest

HEAD = "from trilemma.registry import ProcessSpec, SamplerSpec, hookimpl\n"
SPEC = 'SamplerSpec(name={name!r}, target="trilemma_plugins.ddim.sampler:DDIM", summary="s")'


def hook(*statements: str) -> str:
    return (
        HEAD
        + "@hookimpl\ndef trilemma_register(registry):\n"
        + "".join(f"    {line}\n" for line in statements)
    )


def sampler(name: str) -> str:
    return f"registry.sampler({SPEC.format(name=name)})"


BAD = {
    "raises": ("raise RuntimeError('broken\\nat import')", "failed", "RuntimeError: broken at import"),
    "half": (hook(sampler("half-a"), "raise KeyError('then')"), "failed", "KeyError: 'then'"),
    "takes": (hook(sampler("mine"), sampler("ddim")), "clash", "sampler 'ddim' is built in"),
    "api99": ("TRILEMMA_API = 99\n" + hook(sampler("future")), "incompatible", "needs API version 99"),
    "misses": ("import no_such_dependency", "failed", "'no_such_dependency' is not installed"),
    "exits": ("import sys; sys.exit(3)", "failed", "sys.exit(3)"),
    "syntax": ("def (", "failed", "SyntaxError"),
    "no-hook": ("x = 1", "failed", "no @hookimpl function named trilemma_register"),
    "typo": (HEAD + "@hookimpl\ndef trilemma_registre(registry): pass\n", "failed", "trilemma_registre"),
    "two-hooks": (
        HEAD + "@hookimpl\ndef trilemma_register(registry): pass\n@hookimpl\ndef other(): pass\n",
        "failed",
        "there is no hook but trilemma_register",
    ),
    "arguments": (HEAD + "@hookimpl\ndef trilemma_register(registry, more): pass\n", "failed", "more"),
    "no-spec": (hook("registry.sampler('ddim2')"), "failed", "takes a SamplerSpec, got str"),
    "wrong-spec": (
        hook('registry.sampler(ProcessSpec(name="p", target="a:B", summary="s"))'),
        "failed",
        "takes a SamplerSpec, got ProcessSpec",
    ),
    "twice": (hook(sampler("twin"), sampler("twin")), "failed", "sampler 'twin' is registered twice"),
    "bad-target": (
        hook('registry.sampler(SamplerSpec(name="t", target=DDIM, summary="s"))').replace(
            "@hookimpl", "class DDIM: pass\n@hookimpl"
        ),
        "failed",
        "is not a string",
    ),
    "bad-name": (hook(sampler("a b")), "failed", "name 'a b' is not"),
    "bad-kind": (hook("registry.pictures(1)"), "failed", "no attribute 'pictures'"),
    "looks-up": (
        hook("import trilemma.registry.building as l", "l.build('sampler', 'ddim')"),
        "failed",
        "cannot be looked up while they register",
    ),
    "takes-command": (
        HEAD.replace("SamplerSpec", "CommandSpec")
        + "@hookimpl\ndef trilemma_register(registry):\n"
        + "    registry.command(CommandSpec(name='sample', target='os:getcwd', summary='s'))\n",
        "clash",
        "command 'sample' is built in",
    ),
}


@pytest.fixture
def crowded(site, good):
    """A site with every bad plugin at once, one that needs another trilemma, and a good one."""
    for name, (source, _, _) in BAD.items():
        site.install(name, source)
    site.install("outdated", "raise AssertionError('must not be imported')", requires=["trilemma>=99"])
    site.install("good", good.format(name="fine"))
    return site


def test_each_bad_plugin_is_listed_with_its_reason_and_the_rest_works(crowded):
    records = crowded.records()
    for name, (_, status, reason) in BAD.items():
        record = records[f"{name}/{name.replace('-', '_')}"]
        assert record["status"] == status, record
        assert reason in record["reason"], record
        assert "\n" not in record["reason"]
        assert record["components"] == []
    outdated = records["outdated/outdated"]
    assert outdated["status"] == "incompatible"
    assert outdated["reason"].startswith("needs trilemma>=99, this is ")
    assert records["good/good"]["components"] == [{"kind": "sampler", "name": "fine"}]
    assert records["trilemma/ddim"]["status"] == "ok"


def test_samplers_of_bad_plugins_do_not_exist_and_those_of_good_ones_do(crowded):
    done = crowded.python(
        """
        from trilemma import lookup
        from trilemma.errors import PluginUnavailable
        print(lookup.build("sampler", "fine:eta=1")[1])
        print(lookup.build("sampler", "ddim")[0].eta)
        for name in ("half-a", "mine", "future", "twin"):
            try:
                lookup.build("sampler", name)
            except PluginUnavailable:
                print("no", name)
        """
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "fine:eta=1.0,grid=trailing,clip=None",
        "0.0",
        "no half-a",
        "no mine",
        "no future",
        "no twin",
    ]


def test_commands_work_beside_bad_plugins(crowded):
    assert crowded.trilemma("--help").returncode == 0
    table = crowded.trilemma("plugins")
    assert table.returncode == 0
    assert "needs API version 99" in table.stdout
    doctor = crowded.trilemma("doctor", "--no-torch", "--json")
    problems = json.loads(doctor.stdout)["problems"]
    assert "plugins: raises/raises" in problems
    assert "plugins: good/good" not in problems


def test_two_third_parties_with_one_name_must_be_qualified(site, good):
    site.install("first-one", good.format(name="shared"))
    site.install("second-one", good.format(name="shared"))
    done = site.python(
        """
        from trilemma import lookup
        from trilemma.errors import UsageError
        try:
            lookup.build("sampler", "shared")
        except UsageError as error:
            print(error)
        print(lookup.build("sampler", "second-one/shared:eta=0.5")[1])
        print(lookup.build("sampler", "first_one/shared")[1])
        """
    )
    assert done.stdout.splitlines() == [
        "sampler 'shared' is in 2 distributions; write first-one/shared or second-one/shared",
        "second-one/shared:eta=0.5,grid=trailing,clip=None",
        "first-one/shared:eta=0.0,grid=trailing,clip=None",
    ]
    record = site.records()["first-one/first_one"]
    assert record["status"] == "ok"
    assert record["reason"] == "sampler 'shared' is also in second-one: write first-one/shared"


def test_a_distribution_cannot_register_one_name_from_two_entry_points(site, good):
    site.install("dist", good.format(name="one"), entry_point="a", module="dist_a")
    site.install("dist", good.format(name="one"), entry_point="b", module="dist_b")
    records = site.records()
    assert records["dist/a"]["status"] == "ok"
    assert records["dist/b"]["status"] == "clash"
    assert records["dist/b"]["reason"] == "sampler 'one' is taken by dist/a"


def test_what_a_plugin_prints_while_it_loads_does_not_reach_stdout(site, good):
    site.install("chatty", "print('hello')" + good.format(name="chat"))
    done = site.trilemma("plugins", "--json")
    json.loads(done.stdout)
    assert "hello" in done.stderr


def test_a_plugin_that_imports_torch_is_noted(site, good):
    source = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')" + good.format(name="h")
    site.install("heavy", source)
    record = site.records()["heavy/heavy"]
    assert record["imported_torch"]
    assert not site.records()["trilemma/ddim"]["imported_torch"]
    assert "imports torch" in site.trilemma("plugins").stdout


def test_damaged_metadata_does_not_stop_the_scan(site, good):
    site.install("damaged", good.format(name="d"))
    (site.path / "damaged-1.2.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
    assert site.records()["trilemma/ddim"]["status"] == "ok"
